package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

const (
	retryWait   = 20 * time.Millisecond  // doubles up to ten times that
	attemptWait = time.Second            // for an answer before asking anew, if no leader is known; doubles
	leaderWait  = 100 * time.Millisecond // between looks whether another leads meanwhile
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

// commit is one Commit under way. An operation is sent again when its leader was none, or is
// another one and the first does not answer; the answer to the last attempt counts.
type commit struct {
	n        *Node
	ops      []engine.Op
	states   []attempt
	outcomes chan outcome
}

// attempt is how far an operation has come.
type attempt struct {
	number atomic.Int64 // of the last one, the only one that counts; 0 when nobody waits any more
	stamp  uint64       // its number for the leader
	sent   time.Time
	lead   lead // as the replica here knew it then; zero: it did not, or there is none
	done   bool
	wait   time.Duration // before the next one, after a refusal
	timer  *time.Timer
}

// outcome is what became of one attempt.
type outcome struct {
	op     int
	number int64
	index  uint64
	r      engine.Result
	err    error
}

var errSlow = fmt.Errorf("%w: the leader does not answer", model.ErrUnavailable)

func newCommit(n *Node, ops []engine.Op) *commit {
	c := &commit{n: n, ops: ops, states: make([]attempt, len(ops)), outcomes: make(chan outcome, 4*len(ops))}
	c.sendAll()
	return c
}

// sendAll sends all operations for the first time: those of groups that others lead, which
// have the longer way, before those of our own, and a node's in one frame.
func (c *commit) sendAll() {
	links := map[*link]int{}
	var own, others []int
	for i := range c.ops {
		if l := c.n.linkTo(uint64(c.ops[i].Shard)); l != nil {
			links[l]++
			others = append(others, i)
		} else {
			own = append(own, i)
		}
	}
	expect(links)
	for _, i := range append(others, own...) {
		c.send(i)
	}
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
	number, id := s.number.Add(1), uint64(c.ops[i].Shard)
	s.stamp, s.lead, s.sent = c.n.numbers.above(s.stamp), c.n.localLead(id), time.Now()
	c.wait(i)
	overtaken := func() bool { return s.number.Load() != number }
	c.n.send(id, &proposal{stamp: stamp{life: c.n.life, number: s.stamp}, op: c.ops[i].Bytes, overtaken: overtaken, done: func(index uint64, r engine.Result, err error) {
		c.report(outcome{i, number, index, r, err})
	}})
}

// wait has an attempt looked at again if it has not been answered soon.
func (c *commit) wait(i int) {
	s := &c.states[i]
	number := s.number.Load()
	s.timer = time.AfterFunc(leaderWait, func() { c.report(outcome{op: i, number: number, err: errSlow}) })
}

// overdue tells whether an attempt without an answer is to be made anew: at once when the replica
// here knows another leader, since the attempt may wait at the one before, or at a node that
// passes it on to that; never while it knows the same, where it would only stand behind itself;
// after some time if it knows none.
func (c *commit) overdue(i int) bool {
	s := &c.states[i]
	if now := c.n.localLead(uint64(c.ops[i].Shard)); now.name != "" {
		return now != s.lead
	}
	return time.Since(s.sent) >= attemptWait<<min(s.number.Load()-1, 3)
}

// settle takes an outcome in; done if it is the success of the operation's last attempt.
// That of an earlier one does not count: the last may still be on its way, to come when the
// caller has written something newer.
func (c *commit) settle(o *outcome) (done bool, _ error) {
	s := &c.states[o.op]
	switch {
	case s.done, o.number != s.number.Load():
		return false, nil
	case o.err == nil:
		s.done = true
		s.timer.Stop()
		c.ops[o.op].Index, c.ops[o.op].Result = o.index, o.r
		return true, nil
	case !errors.Is(o.err, model.ErrUnavailable) && !errors.Is(o.err, model.ErrOverloaded):
		return false, o.err
	case errors.Is(o.err, errSlow) && !c.overdue(o.op):
		c.wait(o.op)
	case errors.Is(o.err, errSlow), errors.Is(o.err, errAgain):
		c.send(o.op)
	default:
		s.timer.Stop()
		s.wait = min(max(retryWait, 2*s.wait), 10*retryWait)
		number := s.number.Load()
		s.timer = time.AfterFunc(s.wait, func() { c.report(outcome{op: o.op, number: number, err: errAgain}) })
	}
	return false, nil
}

// errAgain tells that the wait after a refusal is over.
var errAgain = fmt.Errorf("%w: now try again", model.ErrUnavailable)

// end leaves what has not been answered: what this node sends later overtakes it.
func (c *commit) end() {
	for i := range c.states {
		s := &c.states[i]
		s.number.Store(0)
		if s.timer.Stop(); !s.done {
			c.n.numbers.above(s.stamp)
		}
	}
}

// Describe implements engine.Committer.
func (n *Node) Describe(ctx context.Context, mds []model.Metadata) error {
	op, err := json.Marshal(mds)
	if err != nil {
		return err
	}
	_, err = n.commitMeta(ctx, op)
	return err
}

// ChangeRecords implements engine.Committer.
func (n *Node) ChangeRecords(ctx context.Context, c *model.RecordChange) error {
	op, err := json.Marshal(c)
	if err != nil {
		return err
	}
	a, err := n.commitMeta(ctx, op)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, n.opts.CommitTimeout)
	defer cancel()
	if err := n.meta().fsm.wait(ctx, a.index, 0); err != nil {
		return err
	}
	if err := engine.Conflict(c, &a.r); err != nil && !(a.again && n.stands(c)) {
		return err
	}
	return nil
}

// stands tells whether the records are as a change would make them.
func (n *Node) stands(c *model.RecordChange) bool {
	want := map[string]model.Change{} // the last of each
	for _, x := range c.Changes {
		want[x.Key] = x
	}
	for key, x := range want {
		is := slices.ContainsFunc(n.replicas.Records(key), func(r model.Record) bool { return r.Key == key && (x.Delete || bytes.Equal(r.Value, x.Value)) })
		if is == x.Delete {
			return false
		}
	}
	return true
}

// metaAnswer is what became of a proposal of the metadata's group.
type metaAnswer struct {
	index uint64
	r     engine.Result
	again bool // it was proposed more than once: an earlier attempt may have been done
}

// commitMeta commits one proposal of the metadata's group. After a refusal it tries
// again: a change of records whose first attempt was done in silence meets its own
// guards then; see stands.
func (n *Node) commitMeta(ctx context.Context, op []byte) (metaAnswer, error) {
	ctx, cancel := n.whileReached(ctx, n.opts.CommitTimeout, []uint64{uint64(metaStream)})
	defer cancel()
	type answer struct {
		metaAnswer
		err error
	}
	number := uint64(0)
	for again := false; ; again = true {
		done := make(chan answer, 1)
		number = n.numbers.above(number)
		n.send(uint64(metaStream), &proposal{stamp: stamp{life: n.life, number: number}, op: op, overtaken: func() bool { return ctx.Err() != nil }, done: func(index uint64, r engine.Result, err error) { done <- answer{metaAnswer{index, r, again}, err} }})
		select {
		case a := <-done:
			if !errors.Is(a.err, model.ErrUnavailable) && !errors.Is(a.err, model.ErrOverloaded) {
				return a.metaAnswer, a.err
			}
		case <-time.After(attemptWait):
		case <-ctx.Done():
			return metaAnswer{}, fmt.Errorf("%w: the metadata was not confirmed in time", model.ErrUnavailable)
		case <-n.ctx.Done():
			return metaAnswer{}, model.ErrClosed
		}
		if n.pause(ctx) != nil {
			return metaAnswer{}, fmt.Errorf("%w: the metadata's group has no leader", model.ErrUnavailable)
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
