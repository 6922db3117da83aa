package cluster

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Feeds go around a silent leader as reads do (see around.go), but not each by itself: a
// node knows of which shards its replicas don't hear the leader while another node's do.
// It gets its feeds of these from there, and those that others have here end, so that
// they are opened where more is heard.

// detourEvery is how often a node looks for such shards.
const detourEvery = time.Second

// detours is the goroutine that looks for them.
func (n *Node) detours() {
	tick := time.NewTicker(detourEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		if found := n.findDetours(); !slices.Equal(found, *n.detoured.Load()) {
			n.opts.Logger.Debug("cluster: feeds go around leaders that are not heard", "shards", found)
			n.detoured.Store(&found)
			n.mapped.raise() // which feeds follow
		}
	}
}

// findDetours returns the shards whose feeds are to come from elsewhere, sorted. One of
// them remains so while its leader is not heard, if any other node is.
func (n *Node) findDetours() []int {
	ctx, cancel := context.WithTimeout(n.ctx, n.opts.CommitTimeout) // a link that is silent ends sooner
	defer cancel()
	found := []int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, g := range n.serving() {
		if g.id == uint64(metaStream) || !g.unheard(time.Now()) {
			continue
		}
		wg.Go(func() {
			if n.detour(int(g.id)) && n.hearsHolder(g.id) || n.heardElsewhere(ctx, g) {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, int(g.id))
			}
		})
	}
	wg.Wait()
	slices.Sort(found)
	return found
}

// heardElsewhere tells whether another node comes to what a shard's leader has, while
// this one hears nothing of it.
func (n *Node) heardElsewhere(ctx context.Context, g *group) bool {
	p := &reading{n: n, wanted: Wanted{Level: Leader}}
	_, err := p.syncAt(ctx, []int{int(g.id)})
	return err == nil && g.unheard(time.Now())
}

// hearsHolder tells whether there is a connection to another node that holds a shard.
func (n *Node) hearsHolder(shard uint64) bool {
	return slices.ContainsFunc(n.holders(shard), func(name string) bool { return name != n.name && n.link(name).up() })
}

// detour tells whether feeds of a shard come from elsewhere although it lies here.
func (n *Node) detour(shard int) bool { return slices.Contains(*n.detoured.Load(), shard) }

// splitFeeds is split for feeds.
func (n *Node) splitFeeds() (here, elsewhere []int) {
	here, elsewhere = n.split()
	here = slices.DeleteFunc(here, func(s int) bool {
		if !n.detour(s) {
			return false
		}
		elsewhere = append(elsewhere, s)
		return true
	})
	return here, elsewhere
}

// servesFeeds tells whether feeds of all of these shards may come from here.
func (n *Node) servesFeeds(shards []int) bool {
	return n.holdsAll(shards) && !slices.ContainsFunc(shards, n.detour)
}
