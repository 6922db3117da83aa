package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
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
// their logs, and goes on with
//   - the highest term anyone knows as its own, in which its vote is spent, and
//   - a floor: the furthest end of a log among them. A node whose log ends before the
//     floor gets no vote from this one, this one itself included. So it votes as if it
//     had that log, which holds whatever of its own is missing.
//
// All of them must answer. A majority of five, say, is not enough: a leader that was not
// asked may count what this node acknowledged, and lost, together with an acknowledgement
// that one of those asked gives only after its answer. The leader to whom an entry was
// acknowledged, and the candidate who got a vote, are among those who answer if all do, and
// know it: an answer waits for entries that the log is about to hold.
//
// Who the voters are may be among what is missing here, and one that has answered may
// know of members who are gone: a node that lost its folder is another member since. The
// newest configuration that anyone knows to be committed counts, with those behind it in
// anybody's log: whatever was committed before it is in the log of who knows it. What comes
// behind the newest that is known was committed by none, since each differs by one voter
// from the one before, so that those who have answered have a part in every majority of it:
// of three voters or more. Of two, this node and a member that was to get the third vote
// may have been one, so members without a vote must answer too. Only if the group
// had been left to this node alone does no other know of it; what it then lost no other has.
//
// What can't be decided so is an operator's to decide: of three nodes one has lost its
// folder and another the end of its log before the first was taken in anew. They may have
// been the majority of an entry that the third lacks.
//
// It makes no difference how much is missing: of a log damaged in its midst what lies
// behind the damage is put aside (wal.Options.PutAside), and deleted when the node goes on.
//
// Once its own log has come to the floors they are forgotten. Three nodes that lost
// power at once and all doubt their logs answer each other too: then all that there
// is is known, and the one whose log goes furthest becomes the leader. When a majority is in
// doubt no log may tell of the last change of members: whoever holds the group by the map
// must answer.

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
	members []configured // see newestConfigurations; none: they are not known
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

// nobody stands where a candidate would in a term in which this node's vote is spent. No node
// has such a name.
const nobody = "@"

// reassure returns once this node may take part: at once if it does not doubt its log.
func (n *Node) reassure(ctx context.Context) error {
	if err := n.doubtLostLog(); err != nil {
		return err
	}
	doubt, err := n.replicas.Log().Doubt()
	if err != nil || doubt.Why == "" {
		return err
	}
	n.opts.Logger.Error("cluster: this node's log may lack acknowledged entries; asking the others what it must not vote against", "why", doubt.Why)
	mine, err := n.readTails()
	if err != nil {
		return err
	}
	if err := n.mayGoOn(doubt, mine); err != nil {
		return err
	}
	n.setTails(mine)
	defer n.setTails(nil)
	defer n.waitsFor("")
	heard := map[raft.ServerID]*tails{}
	var logged time.Time
	for {
		n.hearTails(ctx, mine, heard)
		missing := unheard(mine, heard, n.holders)
		if len(missing) == 0 {
			return n.goOn(mine, heard)
		}
		if time.Since(logged) > 5*time.Second {
			why := n.inDoubt(ctx, missing, mine, heard)
			n.opts.Logger.Warn("cluster: " + why)
			n.waitsFor(why)
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

// hearTails asks every member that is known. Those that have answered are asked again: the
// group may have come to other members since.
func (n *Node) hearTails(ctx context.Context, mine *tails, heard map[raft.ServerID]*tails) {
	ask := map[string]bool{}
	for id := range mine.groups {
		for _, s := range membersToHear(id, mine, heard) {
			ask[string(s.Address)] = true
		}
		if mapToHear(id, mine, heard) {
			for _, name := range n.holders(id) {
				ask[name] = true
			}
		}
	}
	delete(ask, n.name)
	for name := range ask {
		cctx, cancel := context.WithTimeout(ctx, attemptWait)
		b, err := n.link(name).call(cctx, kindTails, 0, nil)
		cancel()
		if err != nil {
			continue
		}
		if t, err := parseTails(b); err == nil {
			heard[t.id] = t
		}
	}
}

// configurationsOf returns the configurations of a group that count: the newest that anyone
// knows to be committed, and those behind it.
func configurationsOf(id uint64, mine *tails, heard map[raft.ServerID]*tails) []configured {
	all := slices.Clone(mine.groups[id].members)
	committed := uint64(0)
	for _, t := range append(slices.Collect(maps.Values(heard)), mine) {
		if members := t.groups[id].members; len(members) > 0 {
			all = append(all, members...)
			committed = max(committed, members[0].index)
		}
	}
	return slices.DeleteFunc(all, func(c configured) bool { return c.index < committed })
}

// membersToHear returns the members of a group that must answer, this node included.
func membersToHear(id uint64, mine *tails, heard map[raft.ServerID]*tails) []raft.Server {
	var out []raft.Server
	for _, c := range configurationsOf(id, mine, heard) {
		voters := slices.DeleteFunc(c.servers(), func(s raft.Server) bool { return s.Suffrage != raft.Voter })
		if len(voters) < 3 { // one without a vote may have become one of a majority
			voters = c.servers()
		}
		for _, s := range voters {
			if !slices.ContainsFunc(out, func(o raft.Server) bool { return o.ID == s.ID }) {
				out = append(out, s)
			}
		}
	}
	return out
}

// mapToHear tells whether all nodes must answer that hold a group by the map: nobody tells its
// members, or a majority of them may lack the last change.
func mapToHear(id uint64, mine *tails, heard map[raft.ServerID]*tails) bool {
	cs := configurationsOf(id, mine, heard)
	return len(cs) == 0 || slices.ContainsFunc(cs, func(c configured) bool {
		return c.majority(func(s raft.ServerID) bool { t := heard[s]; return s == mine.id || t != nil && t.doubts })
	})
}

// unheard returns who must still answer: members, and nodes of which no member is known. holders
// are who holds a group by the map.
func unheard(mine *tails, heard map[raft.ServerID]*tails, holders func(uint64) []string) (missing []string) {
	for id := range mine.groups {
		to := membersToHear(id, mine, heard)
		for _, s := range to {
			if t := heard[s.ID]; s.ID != mine.id && (t == nil || !t.has(id)) { // or it holds the group no longer
				missing = append(missing, string(s.ID))
			}
		}
		if !mapToHear(id, mine, heard) {
			continue
		}
		for _, name := range holders(id) {
			if name != nodeOf(mine.id) && !answered(name, id, heard) {
				missing = append(missing, name)
			}
		}
		if len(to) == 0 {
			missing = append(missing, "any member of "+groupName(id))
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// answered tells whether a node has, under whatever id.
func answered(name string, id uint64, heard map[raft.ServerID]*tails) bool {
	for _, t := range heard {
		if nodeOf(t.id) == name && t.has(id) {
			return true
		}
	}
	return false
}

// goOn notes the floors and spends the votes, and then ends the doubt.
func (n *Node) goOn(mine *tails, heard map[raft.ServerID]*tails) error {
	floors := map[uint64]place{}
	log := n.replicas.Log()
	for id, g := range mine.groups {
		term, floor := max(g.term, g.end.Term), g.end
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

// mayGoOn fails if more than the last batch is in doubt, and no other node has what a group lost.
func (n *Node) mayGoOn(doubt wal.Doubt, mine *tails) error {
	if doubt.Tail { // which might have been a batch under way: a single node goes on, too
		return nil
	}
	me := n.identity.get()
	this := func(s raft.ServerID) bool { return s == mine.id }
	others := func(name string) bool { return name != n.name }
	for id, g := range mine.groups {
		alone := slices.ContainsFunc(g.members, func(c configured) bool { return c.majority(this) }) && !slices.ContainsFunc(n.holders(id), others)
		if alone || me.Grown && !me.Started {
			return fmt.Errorf("%s, and no other node has %s: bring back the data folder from a backup, or run `strandline cluster recover --data %s` to go on without what is lost",
				doubt.Why, groupName(id), n.opts.Dir)
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
	return log.SetValues(stream, wal.Value{Key: keyCurrentTerm, Val: b}, wal.Value{Key: keyLastVoteTerm, Val: b},
		wal.Value{Key: keyLastVoteCand, Val: []byte(nobody)})
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
	logged := map[wal.StreamID]*loggedConfigurations{}
	for id := range n.allGroups() {
		logged[wal.StreamID(id)] = &loggedConfigurations{}
	}
	if err := log.Replay(func(wal.StreamID) uint64 { return 0 }, func(e *wal.Entry) error {
		logged[e.Stream].note(&raft.Log{Index: e.Index, Type: raft.LogType(e.Type), Data: e.Data})
		return nil
	}); err != nil {
		return nil, err
	}
	for _, m := range n.machines() {
		g, err := tailOf(log, m.id, m.machine, logged[wal.StreamID(m.id)].get(), 0)
		if err != nil {
			return nil, err
		}
		t.groups[m.id] = g
	}
	return t, nil
}

// tailOf reads the end of one group's log. Its members are those of the last flush and of
// the configurations given, up to commit known to be committed.
func tailOf(log *wal.Log, id uint64, m machine, logged []configured, commit uint64) (t tail, err error) {
	stream := wal.StreamID(id)
	if b, ok := log.Value(stream, keyCurrentTerm); ok && len(b) == 8 {
		t.term = binary.LittleEndian.Uint64(b)
	}
	at, ok := m.mark()
	if ok {
		t.end = place{at.Term, at.Applied}
	}
	t.members = newestConfigurations(&at, logged, commit)
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
			x, err := tailOf(n.replicas.Log(), g.id, g.machine, g.store.configurations.get(), g.raft.CommitIndex())
			if err != nil {
				return nil, err
			}
			if floor := g.trans.floor.Load(); floor != nil && x.end.before(*floor) {
				x.end, t.doubts = *floor, true // of the members it knows no more than it did
			}
			t.groups[g.id] = x
		}
	}
	b := putBool(putBytes(nil, t.id), t.doubts)
	for id, g := range t.groups {
		b = putUvarints(b, id, g.term, g.end.Term, g.end.Index, uint64(len(g.members)))
		for _, c := range g.members {
			b = putBytes(putUvarints(b, c.index), c.data)
		}
	}
	return b, nil
}

func parseTails(b []byte) (*tails, error) {
	d := &decoder{b: b}
	t := &tails{id: raft.ServerID(d.bytes()), doubts: d.bool(), groups: map[uint64]tail{}}
	for len(d.b) > 0 {
		id := d.uvarint()
		g := tail{term: d.uvarint(), end: place{d.uvarint(), d.uvarint()}}
		for n := d.uvarint(); n > 0; n-- {
			c := configured{d.uvarint(), d.bytes()}
			if d.bad || !configures(c.data) {
				return nil, errMessage
			}
			g.members = append(g.members, c)
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
			t, err := tailOf(n.replicas.Log(), id, g.machine, nil, 0)
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
