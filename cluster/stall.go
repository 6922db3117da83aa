package cluster

import (
	"errors"
	"fmt"
	"time"
)

const (
	stallDrop = time.Second      // of a hung write to the log, after which this node leads nothing
	stallExit = 10 * time.Second // after which it stops
)

// errStalled: the node's disk hangs. Raft's heartbeats come from goroutines of their
// own, so that a leader whose disk hangs would stay one for ever.
var errStalled = errors.New("the log's disk hangs")

// stalled tells whether this node must send nothing that keeps it a leader.
func (n *Node) stalled() bool { return n.replicas.Log().Writing() > stallDrop }

// watchDisk stops the node when a write to the log has hung for too long: what it
// holds in flight can't be answered, and a restart is what may help.
func (n *Node) watchDisk() {
	tick := time.NewTicker(stallDrop / 2)
	defer tick.Stop()
	warned := false
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		hung := n.replicas.Log().Writing()
		if hung > stallExit {
			n.fail(fmt.Errorf("%w: a write has not ended for %v", errStalled, hung.Round(time.Second)))
			return
		}
		if now := hung > stallDrop; now != warned {
			warned = now
			n.opts.Logger.Warn("cluster: the log's disk", "hangs", now)
		}
	}
}
