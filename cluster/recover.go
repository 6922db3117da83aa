package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// Survivor is what Recover finds in a folder.
type Survivor struct {
	Node, Cluster string
	Doubt         string // why the end of the log may be missing; empty if nothing says so
	Groups        []SurvivingGroup
}

// SurvivingGroup is one group in a folder. What the group committed behind Last is lost;
// what it had not committed up to Last is kept.
type SurvivingGroup struct {
	Group         string
	Held          bool // false: this node has no replica, and all of the group is lost
	Whole         bool // false: the replica has no vote or was being filled, and much may be missing
	Flushed, Last uint64
	Term          uint64 // of Last
	Members       []string
}

// ErrDeclined: the recovery was not confirmed, and nothing was changed.
var ErrDeclined = errors.New("not confirmed; nothing was changed")

// errRecovered ends the opening of the engine when all is done.
var errRecovered = errors.New("recovered")

// Recover makes the folder dir, which one node of a cluster has left that lost its
// majority for good, the first of a new cluster: with a new id and a new incarnation of
// the node, so that neither the old nodes nor this one as it was can come into it. The
// node must not run. confirm sees first what there is. A Recover that broke off is done
// by another one, and until then the node does not start. o are the engine's options.
func Recover(ctx context.Context, dir string, o engine.Options, confirm func(*Survivor) bool) error {
	o.EnsureDefaults()
	if _, err := o.FS.Stat(path.Join(dir, identityName)); err != nil {
		return fmt.Errorf("%w: %s is not the folder of a cluster's node: %w", ErrIdentity, dir, err)
	}
	o.Replicate = func(r *engine.Replicas) (engine.Committer, error) {
		n := &Node{opts: Options{Dir: dir, FS: o.FS, Logger: o.Logger, recovering: true}, replicas: r}
		n.opts.EnsureDefaults()
		n.ctx, n.cancel = context.WithCancel(ctx)
		defer n.cancel()
		if err := n.recover(confirm); err != nil {
			return nil, err
		}
		return nil, errRecovered
	}
	db, err := engine.Open(dir, &o)
	if errors.Is(err, errRecovered) {
		return nil
	}
	if err == nil {
		err = db.Close() // never: Replicate gives nothing
	}
	return err
}

func (n *Node) recover(confirm func(*Survivor) bool) (err error) {
	if n.identity, err = loadIdentity(&n.opts); err != nil {
		return err
	}
	me := n.identity.get()
	if me.Cluster == "" {
		return fmt.Errorf("%w: %s has never been part of a cluster", ErrIdentity, n.opts.Dir)
	}
	n.name, n.raftID = me.Name, serverID(me.Name, me.Incarnation)
	found, err := n.survivor(&me)
	if err != nil {
		return err
	}
	if !confirm(found) {
		return ErrDeclined
	}
	if err := n.reborn(); err != nil {
		return err
	}
	if err := n.applyMeta(); err != nil {
		return err
	}
	var clear model.RecordChange // the map of the old cluster
	for _, r := range n.replicas.Records(mapPrefix) {
		clear.Changes = append(clear.Changes, model.Change{Key: r.Key, Delete: true})
	}
	if _, err := n.replicas.ChangeRecords(0, []model.RecordChange{clear}); err != nil {
		return err
	}
	me = n.identity.get()
	if err := n.settle(n.ctx, firstConfiguration(me.Members, 0, n.replicas.Len())); err != nil {
		return err
	}
	if err := errors.Join(n.replicas.Log().DropAside(), n.replicas.Log().ClearDoubt()); err != nil {
		return err
	}
	return n.identity.change(func(s *self) { s.Recovering, s.Started = false, true })
}

// survivor reads what there is.
func (n *Node) survivor(me *self) (*Survivor, error) {
	doubt, err := n.replicas.Log().Doubt()
	if err != nil {
		return nil, err
	}
	t, err := n.readTails()
	if err != nil {
		return nil, err
	}
	out := &Survivor{Node: me.Name, Cluster: me.Cluster, Doubt: doubt.Why}
	for id := range n.allGroups() {
		g := SurvivingGroup{Group: groupName(id)}
		state, tail := me.Groups[id], t.groups[id]
		g.Held = me.Groups == nil || state == voter || state == learner
		_, lost := me.Lost[id]
		g.Whole = g.Held && state != learner && !lost
		at, _ := n.machine(id).mark()
		g.Flushed, g.Last, g.Term = at.Applied, tail.end.Index, tail.end.Term
		if len(tail.members) > 0 {
			for _, s := range tail.members[len(tail.members)-1].servers() {
				g.Members = append(g.Members, string(s.ID))
			}
		}
		out.Groups = append(out.Groups, g)
	}
	return out, nil
}

// reborn gives the folder its new identity, once. From here the old cluster can't have
// it back.
func (n *Node) reborn() error {
	if n.identity.get().Recovering {
		return nil
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	groups := map[uint64]replicaState{}
	for id := range n.allGroups() {
		groups[id] = voter
	}
	return n.identity.change(func(s *self) {
		s.Incarnation = hex.EncodeToString(random[:])
		s.Members = map[string]string{s.Name: s.Incarnation}
		s.Cluster, s.Grown, s.Recovering, s.Started = clusterID(s.Members), true, true, false
		s.Addresses, s.Floors, s.Lost, s.Groups = nil, nil, nil, groups
	})
}

// applyMeta applies what the log holds of the metadata. Done again it changes nothing.
func (n *Node) applyMeta() error {
	m, log := n.machine(uint64(metaStream)), n.replicas.Log()
	at, _ := m.mark()
	for i := max(at.Applied, log.Base(metaStream)) + 1; i <= log.Last(metaStream); i++ {
		e, err := log.Get(metaStream, i)
		if err != nil {
			return err
		}
		if raft.LogType(e.Type) != raft.LogCommand {
			continue
		}
		if _, err := m.apply(i, e.Data); err != nil {
			return err
		}
	}
	return nil
}
