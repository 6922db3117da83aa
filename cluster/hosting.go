package cluster

import (
	"cmp"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// startGroups brings up the groups of which this node has replicas; of a cluster that
// has just formed, those that follow from its members.
func (n *Node) startGroups() error {
	me := n.identity.get()
	var first func(uint64) *raft.Configuration
	if !me.Started && me.Groups == nil {
		first = func(id uint64) *raft.Configuration { return firstConfiguration(me.Members, id, n.replicas.Len()) }
		me.Groups = map[uint64]replicaState{}
		for id := range n.allGroups() {
			if s := suffrageIn(first(id), n.raftID); s != nil {
				me.Groups[id] = *s
			}
		}
	} else if me.Started && me.Groups == nil { // of before nodes could do without some
		me.Groups = map[uint64]replicaState{}
		for id := range n.allGroups() {
			me.Groups[id] = voter
		}
	}
	n.mu.Lock()
	n.mu.groups = map[uint64]*group{}
	n.mu.Unlock()
	for id := range n.allGroups() {
		switch state := me.Groups[id]; state {
		case "":
		case leaving:
			if err := n.wipe(id); err != nil {
				return err
			}
		default:
			var c *raft.Configuration
			if first != nil {
				c = first(id)
			}
			if err := n.startGroup(id, c, state == learner); err != nil {
				return err
			}
		}
	}
	if me.Started {
		return nil
	}
	return n.identity.change(func(s *self) { s.Started, s.Groups = true, me.Groups })
}

// allGroups yields the numbers of all groups of the cluster.
func (n *Node) allGroups() func(func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for i := range n.replicas.Len() {
			if !yield(uint64(i)) {
				return
			}
		}
		yield(uint64(metaStream))
	}
}

// numbered is a machine and its group's number.
type numbered struct {
	id uint64
	machine
}

// machine makes what a group replicates.
func (n *Node) machine(id uint64) machine {
	if id == uint64(metaStream) {
		return &metaMachine{node: n, r: n.replicas}
	}
	return &shardMachine{node: n, id: id, r: n.replicas.Shard(int(id))}
}

// machines makes what the groups replicate of which this node has replicas.
func (n *Node) machines() []numbered {
	var out []numbered
	me := n.identity.get()
	for id := range n.allGroups() {
		if state := me.Groups[id]; state == voter || state == learner || me.Groups == nil {
			out = append(out, numbered{id, n.machine(id)})
		}
	}
	return out
}

// suffrageIn returns what a member of a configuration is; nil if it is none.
func suffrageIn(c *raft.Configuration, id raft.ServerID) *replicaState {
	for _, s := range c.Servers {
		if s.ID == id {
			state := learner
			if s.Suffrage == raft.Voter {
				state = voter
			}
			return &state
		}
	}
	return nil
}

// startGroup begins to run this node's replica of a group.
func (n *Node) startGroup(id uint64, first *raft.Configuration, empty bool) error {
	n.hosting.Lock()
	defer n.hosting.Unlock()
	if n.ctx.Err() != nil {
		return model.ErrClosed
	}
	if n.group(id) != nil {
		return nil
	}
	g := newGroup(n, id, n.machine(id), n.replicas.Log())
	if id == uint64(metaStream) {
		g.join = func(dst, op []byte) []byte { return append(dst, op...) }
	}
	if floor, ok := n.identity.get().Floors[id]; ok {
		g.trans.floor.Store(&floor)
	}
	if err := g.start(first, empty); err != nil {
		return err
	}
	n.wg.Go(g.settle)
	n.wg.Go(g.greetTerms)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.groups[id] = g
	n.mu.order = append(slices.Clone(n.mu.order), g)
	slices.SortFunc(n.mu.order, func(a, b *group) int { return cmp.Compare(a.id, b.id) })
	return nil
}

// leave ends this node's replica of a group, of which it is a member no longer, and
// deletes its files.
func (n *Node) leave(id uint64) error {
	if err := n.identity.setGroup(id, leaving); err != nil {
		return err
	}
	if err := n.stopGroup(id); err != nil {
		return err
	}
	return n.wipe(id)
}

func (n *Node) stopGroup(id uint64) error {
	n.hosting.Lock()
	defer n.hosting.Unlock()
	n.mu.Lock()
	g := n.mu.groups[id]
	delete(n.mu.groups, id)
	n.mu.order = slices.DeleteFunc(slices.Clone(n.mu.order), func(x *group) bool { return x == g })
	n.mu.Unlock()
	if g == nil {
		return nil
	}
	g.cancel()
	return g.raft.Shutdown().Error()
}

// wipe deletes what is left of a replica. Its term and vote stay: should it become a
// member again, it must not vote twice in a term.
func (n *Node) wipe(id uint64) error {
	if id != uint64(metaStream) {
		if err := n.replicas.Shard(int(id)).Wipe(n.ctx); err != nil {
			return err
		}
	}
	if err := n.replicas.Log().Reset(wal.StreamID(id), 0); err != nil {
		return err
	}
	return n.identity.setGroup(id, "")
}

// meta returns the metadata's group, of which every node has a replica.
func (n *Node) meta() *group { return n.group(uint64(metaStream)) }
