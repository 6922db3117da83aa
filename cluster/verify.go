package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/strandline-db/strandline/shard/model"
)

// A mark is a log entry of a shard's group that changes nothing: the replicas that it
// names hash what they hold at just that entry, so that two can be compared under
// writes. It is markByte, a token, and the names; no payload of the engine begins so.
const (
	markByte  = 0xff
	marksKept = 4 // hashes of the last marks
)

func putMark(token string, names ...string) []byte {
	b := putBytes([]byte{markByte}, token)
	for _, name := range names {
		b = putBytes(b, name)
	}
	return b
}

func isMark(data []byte) bool { return len(data) > 0 && data[0] == markByte }

func parseMark(data []byte) (token string, names []string, err error) {
	d := &decoder{b: data[1:]}
	token = string(d.bytes())
	for len(d.b) > 0 && !d.bad {
		names = append(names, string(d.bytes()))
	}
	return token, names, d.end()
}

// marks are the hashes at the last marks of one replica.
type marks struct {
	mu struct {
		sync.Mutex
		kept []*marked
	}
}

type marked struct {
	token string
	index uint64
	sum   uint64
	err   error
	done  bool
}

// marked begins to hash the replica as it is now; it comes from apply.
func (g *group) marked(index uint64, data []byte) error {
	token, names, err := parseMark(data)
	if err != nil || !slices.Contains(names, g.node.name) {
		return err
	}
	finish := g.node.replicas.Shard(int(g.id)).BeginHash()
	m := &marked{token: token, index: index}
	g.marks.mu.Lock()
	g.marks.mu.kept = append(g.marks.mu.kept, m)
	if over := len(g.marks.mu.kept) - marksKept; over > 0 {
		g.marks.mu.kept = slices.Delete(g.marks.mu.kept, 0, over)
	}
	g.marks.mu.Unlock()
	g.node.wg.Go(func() {
		_, sum, err := finish(g.ctx)
		g.marks.mu.Lock()
		defer g.marks.mu.Unlock()
		m.sum, m.err, m.done = sum, err, true
	})
	return nil
}

// answerVerify puts a mark into the log, and says at which entry.
func (g *group) answerVerify(data []byte) ([]byte, error) {
	if !g.leads() {
		return nil, errNotLeader
	}
	if !isMark(data) {
		return nil, errMessage
	}
	if _, _, err := parseMark(data); err != nil { // in the log it would end all replicas
		return nil, err
	}
	f := until(g, g.raft.Apply(data, g.node.opts.CommitTimeout))
	if err := f.Error(); err != nil {
		return nil, raftError(err)
	}
	return putUvarints(nil, f.Index()), nil
}

// answerHash says at which entry a mark is and what the replica here hashed there. Of a mark
// that it does not know it says only how far it is: it may have come past it by a snapshot, or
// in an earlier life. A hash that failed is told once, and then unknown.
func (g *group) answerHash(token []byte) ([]byte, error) {
	consumed := g.fsm.consumed() // before it looks: the mark may come meanwhile
	g.marks.mu.Lock()
	defer g.marks.mu.Unlock()
	for i, m := range g.marks.mu.kept {
		switch {
		case m.token != string(token):
		case !m.done:
			return nil, fmt.Errorf("%w: not hashed yet", model.ErrUnavailable)
		case m.err != nil:
			g.marks.mu.kept = slices.Delete(g.marks.mu.kept, i, i+1)
			return nil, m.err
		default:
			return putUvarints(nil, m.index, m.sum), nil
		}
	}
	return putUvarints(nil, consumed), nil
}

// mark is where a move's target and a leader are to be compared.
type mark struct {
	of    string // the move, and the leader in its term: after a change of leader there is another mark
	token string
	index uint64
}

// verify compares what a move's target and the leader hold at one entry.
func (c *coordinator) verify(ctx context.Context, m *clusterMap, x *Move, v *groupView) error {
	nodes := []string{v.Leader, x.To}
	if of := fmt.Sprintf("%s-%d-%s-%d", m.plan.ID, x.Shard, v.Leader, v.Term); c.mark.of != of {
		next := mark{of: of, token: fmt.Sprintf("%s-%016x", of, rand.Uint64()), index: math.MaxUint64}
		b, err := c.n.call(ctx, v.Leader, kindVerify, uint64(x.Shard), putMark(next.token, nodes...))
		if err != nil {
			return err
		}
		if d := (&decoder{b: b}); len(b) > 0 { // empty: a node of an earlier version
			next.index = d.uvarint()
			if err := d.end(); err != nil {
				return err
			}
		}
		c.mark = next
	}
	var sums [2]hashAt
	for i, name := range nodes {
		var err error
		if sums[i], err = c.hashOf(ctx, name, uint64(x.Shard)); err != nil {
			return fmt.Errorf("hash of %s: %w", name, err)
		}
	}
	if sums[0] != sums[1] {
		c.mark = mark{}
		return fmt.Errorf("shard %d at entry %d: %s has hash %016x, %s at %d has %016x: the copy is not equal", x.Shard, sums[0].index, v.Leader, sums[0].sum, x.To, sums[1].index, sums[1].sum)
	}
	x.Phase, x.Index, x.Hash = PhasePromoting, sums[0].index, fmt.Sprintf("%016x", sums[0].sum)
	return nil
}

// hashOf asks a node for its hash at the mark. If it has come past the mark without one,
// there is to be another mark.
func (c *coordinator) hashOf(ctx context.Context, name string, id uint64) (hashAt, error) {
	b, err := c.n.call(ctx, name, kindHashOf, id, []byte(c.mark.token))
	if err != nil {
		return hashAt{}, err
	}
	d := &decoder{b: b}
	h := hashAt{index: d.uvarint()}
	if len(d.b) > 0 {
		h.sum = d.uvarint()
		return h, d.end()
	}
	if h.index >= c.mark.index {
		c.mark = mark{}
	}
	return hashAt{}, errors.Join(d.end(), fmt.Errorf("%w: at entry %d", errBehind, h.index))
}

type hashAt struct{ index, sum uint64 }
