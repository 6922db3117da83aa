package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

const (
	retryWait   = 20 * time.Millisecond // doubles up to ten times that
	attemptWait = time.Second           // for an answer before asking anew; doubles
)

// Commit implements engine.Committer.
func (n *Node) Commit(ctx context.Context, ops []engine.Op) error {
	groups := make([]uint64, len(ops))
	for i := range ops {
		groups[i] = uint64(ops[i].Shard)
	}
	ctx, cancel := n.whileReached(ctx, n.opts.CommitTimeout, groups)
	defer cancel()
	c := newCommit(n, ops)
	defer c.end()
	for open := len(ops); open > 0; {
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errCutOff) {
				return errCutOff
			}
			return fmt.Errorf("%w: the write was not confirmed in time", model.ErrUnavailable)
		case <-n.ctx.Done():
			return model.ErrClosed
		case o := <-c.outcomes:
			done, err := c.settle(&o)
			if err != nil {
				return err
			}
			if done {
				open--
			}
		}
	}
	return nil
}

// commit is one Commit under way. An operation is sent again when its leader was none
// or does not answer; the first answer of success counts.
type commit struct {
	n        *Node
	ops      []engine.Op
	states   []attempt
	outcomes chan outcome
}

// attempt is how far an operation has come.
type attempt struct {
	number int
	done   bool
	wait   time.Duration // before the next one, after a refusal
	timer  *time.Timer
}

// outcome is what became of one attempt.
type outcome struct {
	op, number int
	index      uint64
	r          engine.Result
	err        error
}

var errSlow = fmt.Errorf("%w: the leader does not answer", model.ErrUnavailable)

func newCommit(n *Node, ops []engine.Op) *commit {
	c := &commit{n: n, ops: ops, states: make([]attempt, len(ops)), outcomes: make(chan outcome, 4*len(ops))}
	for i := range ops {
		c.send(i)
	}
	return c
}

// report never blocks: who answers late must not wait, and what is dropped is asked
// for again.
func (c *commit) report(o outcome) {
	select {
	case c.outcomes <- o:
	default:
	}
}

func (c *commit) send(i int) {
	s := &c.states[i]
	s.number++
	number := s.number
	s.timer = time.AfterFunc(attemptWait<<min(number-1, 3), func() { c.report(outcome{op: i, number: number, err: errSlow}) })
	c.n.send(uint64(c.ops[i].Shard), &proposal{op: c.ops[i].Bytes, done: func(index uint64, r engine.Result, err error) {
		c.report(outcome{i, number, index, r, err})
	}})
}

// settle takes an outcome in; done if it is the operation's first success.
func (c *commit) settle(o *outcome) (done bool, _ error) {
	s := &c.states[o.op]
	switch {
	case s.done:
		return false, nil
	case o.err == nil:
		s.done = true
		s.timer.Stop()
		c.ops[o.op].Index, c.ops[o.op].Result = o.index, o.r
		return true, nil
	case !errors.Is(o.err, model.ErrUnavailable) && !errors.Is(o.err, model.ErrOverloaded):
		return false, o.err
	case o.number != s.number: // of an attempt that was given up
	case errors.Is(o.err, errSlow), errors.Is(o.err, errAgain):
		c.send(o.op)
	default:
		s.timer.Stop()
		s.wait = min(max(retryWait, 2*s.wait), 10*retryWait)
		number := s.number
		s.timer = time.AfterFunc(s.wait, func() { c.report(outcome{op: o.op, number: number, err: errAgain}) })
	}
	return false, nil
}

// errAgain tells that the wait after a refusal is over.
var errAgain = fmt.Errorf("%w: now try again", model.ErrUnavailable)

func (c *commit) end() {
	for i := range c.states {
		c.states[i].timer.Stop()
	}
}

// Describe implements engine.Committer.
func (n *Node) Describe(ctx context.Context, mds []model.Metadata) error {
	op, err := json.Marshal(mds)
	if err != nil {
		return err
	}
	_, _, err = n.commitMeta(ctx, op)
	return err
}

// ChangeRecords implements engine.Committer.
func (n *Node) ChangeRecords(ctx context.Context, c *model.RecordChange) error {
	op, err := json.Marshal(c)
	if err != nil {
		return err
	}
	index, r, err := n.commitMeta(ctx, op)
	if err != nil {
		return err
	}
	if err := engine.Conflict(c, &r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, n.opts.CommitTimeout)
	defer cancel()
	return n.meta().fsm.wait(ctx, index, 0)
}

// commitMeta commits one proposal of the metadata's group. After a refusal it tries
// again: a change of records whose first attempt was done in silence meets its own
// guards, so that what has a guard may be told to conflict with itself.
func (n *Node) commitMeta(ctx context.Context, op []byte) (uint64, engine.Result, error) {
	ctx, cancel := n.whileReached(ctx, n.opts.CommitTimeout, []uint64{uint64(metaStream)})
	defer cancel()
	type answer struct {
		index uint64
		r     engine.Result
		err   error
	}
	for {
		done := make(chan answer, 1)
		n.send(uint64(metaStream), &proposal{op: op, done: func(index uint64, r engine.Result, err error) { done <- answer{index, r, err} }})
		select {
		case a := <-done:
			if !errors.Is(a.err, model.ErrUnavailable) && !errors.Is(a.err, model.ErrOverloaded) {
				return a.index, a.r, a.err
			}
		case <-time.After(attemptWait):
		case <-ctx.Done():
			return 0, engine.Result{}, fmt.Errorf("%w: the metadata was not confirmed in time", model.ErrUnavailable)
		case <-n.ctx.Done():
			return 0, engine.Result{}, model.ErrClosed
		}
		if n.pause(ctx) != nil {
			return 0, engine.Result{}, fmt.Errorf("%w: the metadata's group has no leader", model.ErrUnavailable)
		}
	}
}

// pause waits a little before a try again; an error if ctx ends first.
func (n *Node) pause(ctx context.Context) error {
	select {
	case <-time.After(retryWait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
