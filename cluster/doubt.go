package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// A node whose log may lack acknowledged entries (wal.Log.Doubt) must not go by it:
// its vote could make a leader of a node that lacks a committed entry, it could vote
// twice in a term, or acknowledge to a leader whom its lost vote overruled. Before its
// groups start it asks the other voters of each group for their terms and the ends of
// their logs. What it acknowledged and a majority had is then in the log of one of
// those that answer, if of n voters n-m+1 others do, m being a majority: of three both
// others. It goes on with
//   - the highest term anyone knows as its own, in which its vote is spent, and
//   - a floor: the furthest end of a log among them. A node whose log ends before the
//     floor gets no vote from this one, this one itself included. So it votes as if it
//     had that log, which holds whatever of its own is missing.
//
// It makes no difference how much is missing: of a log damaged in its midst what lies
// behind the damage is put aside (wal.Options.PutAside), and deleted when the node goes on.
//
// Once its own log has come to the floors they are forgotten. Three nodes that lost
// power at once and all doubt their logs answer each other too: then all that there
// is is known, and the one whose log goes furthest becomes the leader. An answer of a
// node in doubt counts only if all voters have answered.

// place is an end of a log.
type place struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

func (p place) before(q place) bool {
	return p.Term < q.Term || p.Term == q.Term && p.Index < q.Index
}

// tail is what a node's log says of one group.
type tail struct {
	term    uint64 // the current one
	end     place
	members []byte // the newest configuration, encoded
}

// tails is what a node says of its groups.
type tails struct {
	id     raft.ServerID
	doubts bool
	groups map[uint64]tail
}

func (t *tails) has(group uint64) bool { _, ok := t.groups[group]; return ok }

// Keys under which Raft keeps its stable values.
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

// reassure returns once this node may take part: at once if it does not doubt its log.
func (n *Node) reassure(ctx context.Context) error {
	if err := n.doubtLostLog(); err != nil {
		return err
	}
	why, err := n.replicas.Log().Doubt()
	if err != nil || why == "" {
		return err
	}
	n.opts.Logger.Error("cluster: this node's log may lack acknowledged entries; asking the others what it must not vote against", "why", why)
	mine, err := n.readTails()
	if err != nil {
		return err
	}
	for id, g := range mine.groups {
		if n.outgrown(id, &g) {
			g.members = nil // to be asked for
			mine.groups[id] = g
		}
	}
	if err := n.mayGoOn(mine); err != nil {
		return err
	}
	n.setTails(mine)
	defer n.setTails(nil)
	heard := map[raft.ServerID]*tails{}
	var logged time.Time
	for {
		n.hearTails(ctx, mine, heard)
		missing := unheard(mine, heard)
		if len(missing) == 0 {
			return n.goOn(mine, heard)
		}
		if time.Since(logged) > 5*time.Second {
			n.opts.Logger.Warn("cluster: not taking part before these nodes have said how far their logs go", "missing", missing)
			logged = time.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(formWait):
		}
	}
}

// doubtLostLog doubts a log that has no term of a group in which this node had a vote, as
// one that lost all its files has none: what is left of a shard may be the manifest of
// another replica, which reaches behind the log by right. The metadata's log then goes on
// behind its state.
func (n *Node) doubtLostLog() error {
	me, log := n.identity.get(), n.replicas.Log()
	if !me.Started {
		return nil
	}
	for id := range n.allGroups() {
		if state := me.Groups[id]; state != voter && me.Groups != nil {
			continue
		}
		if _, ok := log.Value(wal.StreamID(id), keyCurrentTerm); ok {
			continue
		}
		if err := log.SetDoubt(fmt.Sprintf("nothing is left of the log of %s: log files are missing or were cut", groupName(id))); err != nil {
			return err
		}
		break
	}
	return n.alignMeta()
}

// hearTails asks every member that is known and was not heard.
func (n *Node) hearTails(ctx context.Context, mine *tails, heard map[raft.ServerID]*tails) {
	ask := map[raft.ServerAddress]bool{}
	for _, s := range membersOf(mine, heard) {
		if s.ID != n.raftID && heard[s.ID] == nil {
			ask[s.Address] = true
		}
	}
	unknown := slices.ContainsFunc(slices.Collect(maps.Keys(mine.groups)), func(id uint64) bool { return len(votersOf(id, mine, heard)) == 0 })
	for name := range n.currentMap().nodes {
		if unknown && name != n.name { // not even the members of a group are known any more
			ask[raft.ServerAddress(name)] = true
		}
	}
	for addr := range ask {
		cctx, cancel := context.WithTimeout(ctx, attemptWait)
		b, err := n.link(string(addr)).call(cctx, kindTails, 0, nil)
		cancel()
		if err != nil {
			continue
		}
		if t, err := parseTails(b); err == nil {
			heard[t.id] = t
		}
	}
}

// membersOf returns the voters of all groups, as far as anyone knows.
func membersOf(mine *tails, heard map[raft.ServerID]*tails) []raft.Server {
	var out []raft.Server
	for id := range mine.groups {
		out = append(out, votersOf(id, mine, heard)...)
	}
	return out
}

// votersOf returns everyone who is a voter of a group in the eyes of one of those heard:
// the newest change of the members may be among what is missing here.
func votersOf(id uint64, mine *tails, heard map[raft.ServerID]*tails) []raft.Server {
	var out []raft.Server
	add := func(t *tails) {
		members := t.groups[id].members
		if len(members) == 0 {
			return
		}
		for _, s := range raft.DecodeConfiguration(members).Servers {
			if s.Suffrage == raft.Voter && !slices.ContainsFunc(out, func(o raft.Server) bool { return o.ID == s.ID }) {
				out = append(out, s)
			}
		}
	}
	add(mine)
	for _, t := range heard {
		add(t)
	}
	return out
}

// unheard returns the voters that must still answer.
func unheard(mine *tails, heard map[raft.ServerID]*tails) (missing []string) {
	for id := range mine.groups {
		voters := votersOf(id, mine, heard)
		if len(voters) == 0 && len(heard) == 0 {
			return []string{"any member"}
		}
		if len(voters) == 0 {
			missing = append(missing, "any member of "+groupName(id))
			continue
		}
		sure, silent := 0, []string(nil)
		for _, s := range voters {
			t := heard[s.ID]
			switch {
			case s.ID == mine.id:
			case t == nil || !t.has(id): // or it holds the group no longer
				silent = append(silent, string(s.ID))
			case !t.doubts:
				sure++
			}
		}
		if majority := len(voters)/2 + 1; sure < len(voters)-majority+1 {
			missing = append(missing, silent...)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// goOn notes the floors and spends the votes, and then ends the doubt.
func (n *Node) goOn(mine *tails, heard map[raft.ServerID]*tails) error {
	floors := map[uint64]place{}
	log := n.replicas.Log()
	for id, g := range mine.groups {
		term, floor := g.term, g.end
		for _, t := range heard {
			term = max(term, t.groups[id].term)
			if end := t.groups[id].end; floor.before(end) {
				floor = end
			}
		}
		if g.end.before(floor) {
			floors[id] = floor
		}
		if err := spendVote(log, wal.StreamID(id), term); err != nil {
			return err
		}
	}
	if err := n.identity.change(func(s *self) { s.Floors = furthest(s.Floors, floors) }); err != nil {
		return err
	}
	n.opts.Logger.Info("cluster: taking part again", "groups_behind", len(floors))
	if err := log.DropAside(); err != nil {
		return err
	}
	return log.ClearDoubt()
}

// alignMeta lets the metadata's log go on behind its state, as that of a shard does, which
// is durable and may be ahead of a log that has lost its end.
func (n *Node) alignMeta() error {
	at, ok := n.machine(uint64(metaStream)).mark()
	if log := n.replicas.Log(); ok && at.Applied > log.Last(metaStream) {
		return log.Reset(metaStream, at.Applied)
	}
	return nil
}

// outgrown tells whether the members that the log gives a group are this node alone, as it
// once was, while the map has others.
func (n *Node) outgrown(id uint64, t *tail) bool {
	m := n.currentMap()
	if len(t.members) == 0 || id != uint64(metaStream) && id >= uint64(len(m.shards)) {
		return false
	}
	return !slices.ContainsFunc(raft.DecodeConfiguration(t.members).Servers, func(s raft.Server) bool { return s.ID != n.raftID }) &&
		slices.ContainsFunc(n.holders(id), func(name string) bool { return name != n.name })
}

// mayGoOn fails if part of the log lies aside and no other node can have it.
func (n *Node) mayGoOn(mine *tails) error {
	aside, err := n.replicas.Log().Aside()
	if err != nil || !aside {
		return err
	}
	me := n.identity.get()
	for id := range mine.groups {
		voters := votersOf(id, mine, nil)
		if len(voters) == 1 && voters[0].ID == n.raftID || me.Grown && !me.Started {
			return fmt.Errorf("the log is damaged, and no other node has %s: bring back the data folder from a backup, or delete the files in %s that end in .damaged to go on without what they hold",
				groupName(id), path.Join(n.opts.Dir, "wal"))
		}
	}
	return nil
}

// furthest joins floors.
func furthest(a, b map[uint64]place) map[uint64]place {
	out := maps.Clone(b)
	for id, p := range a {
		if q, ok := out[id]; !ok || q.before(p) {
			out[id] = p
		}
	}
	return out
}

// spendVote makes term a group's current one, in which this node has voted.
func spendVote(log *wal.Log, stream wal.StreamID, term uint64) error {
	b := appendTerm(term)
	return errors.Join(log.SetValue(stream, keyCurrentTerm, b), log.SetValue(stream, keyLastVoteTerm, b),
		log.SetValue(stream, keyLastVoteCand, []byte("unknown")))
}

func (n *Node) setTails(t *tails) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.tails = t
}

// readTails reads the log of a node whose groups do not run.
func (n *Node) readTails() (*tails, error) {
	log := n.replicas.Log()
	t := &tails{id: n.raftID, doubts: true, groups: map[uint64]tail{}}
	newest := map[wal.StreamID][]byte{}
	if err := log.Replay(func(wal.StreamID) uint64 { return 0 }, func(e *wal.Entry) error {
		if e.Type == uint8(raft.LogConfiguration) {
			newest[e.Stream] = slices.Clone(e.Data)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for _, m := range n.machines() {
		g, err := tailOf(log, m.id, m.machine)
		if err != nil {
			return nil, err
		}
		if c := newest[wal.StreamID(m.id)]; c != nil {
			g.members = c
		}
		t.groups[m.id] = g
	}
	return t, nil
}

// tailOf reads the end of one group's log; its members are those of the last snapshot.
func tailOf(log *wal.Log, id uint64, m machine) (t tail, err error) {
	stream := wal.StreamID(id)
	if b, ok := log.Value(stream, keyCurrentTerm); ok && len(b) == 8 {
		t.term = binary.LittleEndian.Uint64(b)
	}
	if at, ok := m.mark(); ok {
		t.end, t.members = place{at.Term, at.Applied}, at.Configuration
	}
	if last := log.Last(stream); last > max(log.Base(stream), t.end.Index) {
		e, err := log.Get(stream, last)
		if err != nil {
			return t, err
		}
		t.end = place{e.Term, last}
	}
	return t, nil
}

// answerTails is asked for by a node that doubts its log. This one may do so too; once
// it goes on, its floors are what it stands for. A leader's entries that are late here may
// have been acknowledged and lost by the one that asks, and count as soon as they are not.
func (n *Node) answerTails() ([]byte, error) {
	n.mu.Lock()
	t := n.mu.tails
	n.mu.Unlock()
	if t == nil {
		if !n.started.Load() {
			return nil, errDown
		}
		t = &tails{id: n.raftID, groups: map[uint64]tail{}}
		for _, g := range n.ordered() {
			if err := g.store.late.wait(math.MaxUint64); err != nil {
				return nil, err
			}
			x, err := tailOf(n.replicas.Log(), g.id, g.machine)
			if err != nil {
				return nil, err
			}
			if f := g.raft.GetConfiguration(); f.Error() == nil {
				x.members = raft.EncodeConfiguration(f.Configuration())
			}
			if floor := g.trans.floor.Load(); floor != nil && x.end.before(*floor) {
				x.end = *floor
			}
			t.groups[g.id] = x
		}
	}
	b := putBool(putBytes(nil, t.id), t.doubts)
	for id, g := range t.groups {
		b = putBytes(putUvarints(b, id, g.term, g.end.Term, g.end.Index), g.members)
	}
	return b, nil
}

func parseTails(b []byte) (*tails, error) {
	d := &decoder{b: b}
	t := &tails{id: raft.ServerID(d.bytes()), doubts: d.bool(), groups: map[uint64]tail{}}
	for len(d.b) > 0 {
		id := d.uvarint()
		g := tail{term: d.uvarint(), end: place{d.uvarint(), d.uvarint()}, members: d.bytes()}
		if len(g.members) > 0 && !configures(g.members) {
			return nil, errMessage
		}
		t.groups[id] = g
	}
	return t, d.end()
}

// configures tells whether Raft can decode a configuration; it panics if not.
func configures(b []byte) (ok bool) {
	defer func() { ok = recover() == nil }()
	raft.DecodeConfiguration(b)
	return true
}

// belowFloor tells whether a log that ends at p may lack what this node has acknowledged
// and lost.
func (t *transport) belowFloor(p place) bool {
	f := t.floor.Load()
	return f != nil && p.before(*f)
}

// errBelowFloor: a log lacks entries that this node acknowledged.
var errBelowFloor = fmt.Errorf("%w: the log may lack entries that were acknowledged", model.ErrUnavailable)

// refusesVote tells whether a request for a vote, of this node or of another, must not
// go on its way.
func (t *transport) refusesVote(command any) bool {
	switch r := command.(type) {
	case *raft.RequestVoteRequest:
		return t.belowFloor(place{r.LastLogTerm, r.LastLogIndex})
	case *raft.RequestPreVoteRequest:
		return t.belowFloor(place{r.LastLogTerm, r.LastLogIndex})
	}
	return false
}

// climb forgets the floors of the groups whose logs have come to them.
func (n *Node) climb() {
	tick := time.NewTicker(balanceEvery)
	defer tick.Stop()
	for len(n.identity.get().Floors)+len(n.identity.get().Lost) > 0 {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		if err := n.found(); err != nil {
			n.fail(err)
			return
		}
		left := map[uint64]place{}
		for id, floor := range n.identity.get().Floors {
			g := n.group(id)
			if g == nil {
				continue // its replica has gone
			}
			t, err := tailOf(n.replicas.Log(), id, g.machine)
			if err != nil || t.end.before(floor) {
				left[id] = floor
			}
		}
		if len(left) == len(n.identity.get().Floors) {
			continue
		}
		if err := n.identity.change(func(s *self) { s.Floors = left }); err != nil {
			n.fail(err)
			return
		}
		for _, g := range n.ordered() {
			if _, below := left[g.id]; !below {
				g.trans.floor.Store(nil)
			}
		}
	}
}
