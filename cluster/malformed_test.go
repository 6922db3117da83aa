package cluster

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// TestMalformedRequests: whatever a peer asks, a node answers each request once, goes on, and so
// does the cluster. Raft's own messages and proposals, which it believes a peer, are not among them.
func TestMalformedRequests(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 20)
	n := c.nodes["n1"].node
	a, b := net.Pipe()
	defer b.Close()
	w := newWire(a, &buffers{})
	kinds := []kind{
		kindTerms, kindReadIndex, kindLeader, kindConfig, kindAllow, kindVerify, kindHashOf, kindSync, kindSelect, kindRead, kindClose, kindNames,
		kindStatus, kindHolds, kindOffer, kindRelease, kindFeed, kindFeedPoll, kindFeedNudge, kindFeedClose, kindAsk, kindWork, kindWorkPoll,
		kindWorkEnd, kindCut, kindNode, kindTails, kindFetch, kindTails + 50,
	}
	g := &gibberish{rand.New(rand.NewPCG(3, 4)), n.life}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var open sync.WaitGroup
	for id := range uint64(10_000) {
		m := &message{kind: kinds[g.rng.IntN(len(kinds))], id: id, group: g.number(), data: g.data()}
		open.Add(1)
		n.handle(ctx, w, m, func([]byte, error) { open.Done() })
	}
	open.Wait()
	w.close()
	c.mustWrite("n1", 20, 40)
	c.checkAll()
}

// gibberish makes data that decodes for a while.
type gibberish struct {
	rng  *rand.Rand
	life uint64
}

func (g *gibberish) number() uint64 {
	if g.rng.IntN(2) == 0 {
		return uint64(g.rng.IntN(10)) // a shard, or what begins an entry
	}
	edges := []uint64{1 << 31, math.MaxInt64, 1 << 63, math.MaxUint64 - 1, math.MaxUint64, g.life, g.rng.Uint64()}
	return edges[g.rng.IntN(len(edges))]
}

func (g *gibberish) data() (d []byte) {
	if g.rng.IntN(4) == 0 {
		d = putSelect(putUvarints(d, g.number()), g.rng.Perm(9)[:g.rng.IntN(5)], everything())
		d[g.rng.IntN(len(d))] = byte(g.rng.IntN(256))
		return d
	}
	if g.rng.IntN(8) == 0 {
		d = append(d, markByte)
	}
	for range g.rng.IntN(12) {
		if g.rng.IntN(5) == 0 {
			d = putBytes(d, fmt.Sprint("n", g.rng.IntN(5)))
		} else {
			d = putUvarints(d, g.number())
		}
	}
	return d
}
