package cluster

import (
	"context"
	"slices"
	"time"
)

// Nothing that keeps a cluster together goes by the machines' clocks: leases, staleness and
// timeouts are measured on one machine each, by what passes there. But what is older than the
// retention goes by a clock, on all nodes, because the leader says so; and a clock may be set
// wrong.

// Time implements engine.Committer: the middle one of the times by the clocks of all nodes
// that answer, the earlier of two in the middle. So one clock of three that is wrong removes
// nothing too early, and keeps nothing for ever.
func (n *Node) Time(ctx context.Context, now time.Time) time.Time {
	names := slices.DeleteFunc(n.currentMap().members(stateMember, stateDraining), func(name string) bool { return name == n.name })
	said := make(chan int64)
	for _, name := range names {
		go func() {
			a, _ := n.hello(ctx, name) // 0 if there is no answer
			said <- a.Now
		}()
	}
	times := []int64{now.UnixMilli()}
	for range names {
		if at := <-said; at != 0 {
			times = append(times, at)
		}
	}
	slices.Sort(times)
	return time.UnixMilli(times[(len(times)-1)/2])
}
