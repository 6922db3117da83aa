package cluster

import (
	"context"
	"fmt"
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
	finish, err := g.node.replicas.Shard(int(g.id)).BeginHash()
	if err != nil {
		return err
	}
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

// answerVerify puts a mark into the log.
func (g *group) answerVerify(data []byte) error {
	if !g.leads() || !isMark(data) {
		return errNotLeader
	}
	if err := until(g, g.raft.Apply(data, g.node.opts.CommitTimeout)).Error(); err != nil {
		return raftError(err)
	}
	return nil
}

// answerHash says what the replica here hashed at a mark.
func (g *group) answerHash(token []byte) ([]byte, error) {
	g.marks.mu.Lock()
	defer g.marks.mu.Unlock()
	for _, m := range g.marks.mu.kept {
		if m.token == string(token) && m.done {
			return putUvarints(nil, m.index, m.sum), m.err
		}
	}
	return nil, fmt.Errorf("%w: not hashed yet", model.ErrUnavailable)
}

// verify compares what a move's target and the leader hold at one entry.
func (c *coordinator) verify(ctx context.Context, m *clusterMap, x *Move, v *groupView) error {
	// Of this move and this leader: after a change of leader there is another mark.
	token := fmt.Sprintf("%s-%d-%s-%d", m.plan.ID, x.Shard, v.Leader, v.Term)
	nodes := []string{v.Leader, x.To}
	if c.verifying != token {
		c.verifying = token
		if _, err := c.n.call(ctx, v.Leader, kindVerify, uint64(x.Shard), putMark(token, nodes...)); err != nil {
			c.verifying = ""
			return err
		}
	}
	var sums [2]hashAt
	for i, name := range nodes {
		b, err := c.n.call(ctx, name, kindHashOf, uint64(x.Shard), []byte(token))
		if err != nil {
			return fmt.Errorf("hash of %s: %w", name, err)
		}
		d := &decoder{b: b}
		sums[i] = hashAt{d.uvarint(), d.uvarint()}
		if err := d.end(); err != nil {
			return err
		}
	}
	if sums[0] != sums[1] {
		c.verifying = ""
		return fmt.Errorf("shard %d at entry %d: %s has hash %016x, %s at %d has %016x: the copy is not equal", x.Shard, sums[0].index, v.Leader, sums[0].sum, x.To, sums[1].index, sums[1].sum)
	}
	x.Phase, x.Index, x.Hash = PhasePromoting, sums[0].index, fmt.Sprintf("%016x", sums[0].sum)
	return nil
}

type hashAt struct{ index, sum uint64 }
