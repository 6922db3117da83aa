package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/shard/model"
)

// Raft has a goroutine for each group and follower, which sends ten heartbeats in the time
// in which the follower wants to hear one, each with a timer of its own. Here they wait for
// the node's beat, the same for all groups, and go out together: one frame to a peer,
// answered in one. An idle node is woken by its beat and by those of the others.

const (
	// beatsIn is how many beats there are in the time after which a follower stands for
	// election. Raft's goroutine, which waits a tenth to a fifth of it, comes in time for each.
	beatsIn   = 4
	beatsHeld = 2 // of them may pass before Raft hears of them
)

// beat lets goroutines go on together at the multiples of a period. Without any that wait
// it does nothing.
type beat struct {
	every time.Duration
	start time.Time
	mu    struct {
		sync.Mutex
		next chan struct{} // closed at the next beat; nil: nobody waits
	}
}

func newBeat(every time.Duration) *beat { return &beat{every: every, start: time.Now()} }

// wait returns at the next beat, or when ctx ends.
func (b *beat) wait(ctx context.Context) {
	b.mu.Lock()
	if b.mu.next == nil {
		b.mu.next = make(chan struct{})
		time.AfterFunc(b.every-time.Since(b.start)%b.every, b.strike)
	}
	next := b.mu.next
	b.mu.Unlock()
	select {
	case <-next:
	case <-ctx.Done():
	}
}

func (b *beat) strike() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.mu.next)
	b.mu.next = nil
}

// isHeartbeat tells the requests of Raft's heartbeat loop, which say nothing of the log.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return len(r.Entries) == 0 && r.PrevLogEntry == 0 && r.LeaderCommitIndex == 0
}

// told is what a leader has told each follower, and heard from it.
type told struct {
	mu struct {
		sync.Mutex
		followers map[raft.ServerAddress]*toldOne
	}
}

type toldOne struct {
	committed uint64    // the newest commit index that it was told
	before    uint64    // the newest at the last heartbeat
	term      uint64    // of the last heartbeat that it answered
	sent      time.Time // when that was sent
	echo      echo      // what its answer said
}

// echo is a time by the clock of a follower, for it alone: the process' random number and
// the nanoseconds since its start. Zero: none.
type echo struct{ life, clock uint64 }

func putEcho(b []byte, e echo) []byte { return putUvarints(b, e.life, e.clock) }

func (d *decoder) echo() echo { return echo{d.uvarint(), d.uvarint()} }

// change calls fn with what is known of a follower.
func (t *told) change(name raft.ServerAddress, fn func(*toldOne)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.followers == nil {
		t.mu.followers = map[raft.ServerAddress]*toldOne{}
	}
	f := t.mu.followers[name]
	if f == nil {
		f = &toldOne{}
		t.mu.followers[name] = f
	}
	fn(f)
}

// commit notes that a follower is told a commit index.
func (t *told) commit(to raft.ServerAddress, index uint64) {
	t.change(to, func(f *toldOne) { f.committed = max(f.committed, index) })
}

// knows tells whether a follower has been told this commit index.
func (t *told) knows(to raft.ServerAddress, index uint64) (knows bool) {
	t.change(to, func(f *toldOne) { knows = f.committed >= index })
	return knows
}

// rests tells whether this commit index is that of the last heartbeat, and a follower has
// not been told it, which it then has.
func (t *told) rests(to raft.ServerAddress, index uint64) (news bool) {
	t.change(to, func(f *toldOne) {
		if news = index > f.committed && index == f.before; news {
			f.committed = index
		}
		f.before = index
	})
	return news
}

// backed returns the newest time at which a majority of these voters, me among them, was
// sure to follow the leader of this term; zero if none has answered it yet.
func (t *told) backed(voters []raft.Server, me raft.ServerID, term uint64, now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	var times []time.Time
	for _, s := range voters {
		at := time.Time{}
		if f := t.mu.followers[s.Address]; s.ID == me {
			at = now
		} else if f != nil && f.term == term {
			at = f.sent
		}
		times = append(times, at)
	}
	if len(times) == 0 {
		return time.Time{}
	}
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	return times[len(times)/2]
}

// A heartbeat is Raft's request, the leader's commit index, and the echo of the follower's
// last answer: what was committed then is within that index, however long the heartbeat
// was on its way. Neither of the two was in a later term then, and of three or four voters no
// majority is without both. Of more, and for a follower without a vote, it is true but for
// as long as a leader that has been overruled does not know it, its lease at most; that can
// only be the metadata, of which no sample is read. An answer is Raft's and the follower's time.

// sendHeartbeat is one call of Raft's heartbeat loop. While the follower answers it stays
// for beatsHeld beats, each with a heartbeat: the loop's own timer wakes the node less
// often, and Raft hears of the answers within half its lease.
func (t *transport) sendHeartbeat(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	for range beatsHeld {
		var last toldOne
		t.told.change(target, func(f *toldOne) { last = *f })
		lately := last.term == args.Term && time.Since(last.sent) < t.node.beat.every
		if lately {
			t.node.beat.wait(t.ctx)
		}
		if err := t.beatOnce(id, target, args, last.echo, resp); err != nil || !lately || !resp.Success {
			return err
		}
	}
	return nil
}

// beatOnce sends a heartbeat and takes in its answer. What has been committed since the
// last one but one and not told is announced: Raft itself takes its CommitTimeout. A leader
// that can't answer for its commit index says nothing of how fresh the follower is.
func (t *transport) beatOnce(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, echoed echo, resp *raft.AppendEntriesResponse) error {
	committed, sent := t.led(args.Term), time.Now()
	if committed == 0 {
		echoed = echo{}
	}
	if t.told.rests(target, committed) {
		t.announce(committed, target)
	}
	*resp = raft.AppendEntriesResponse{}
	d, err := t.call(target, shortWait, kindHeartbeat, putEcho(putUvarints(putAppend(forMember(id), args), committed), echoed))
	if err != nil {
		return err
	}
	d.appendResponse(resp)
	echo := d.echo()
	if err = d.end(); err == nil && resp.Success {
		t.told.change(target, func(f *toldOne) { f.term, f.sent, f.echo = args.Term, sent, echo })
	}
	if err == nil && resp.Term > args.Term {
		return errLaterTerm
	}
	return err
}

// errLaterTerm: a follower is in a later term. Raft takes any answer to a heartbeat for a sign that
// it is followed, and would go on to lead in the old term until it has an entry to send.
var errLaterTerm = fmt.Errorf("%w: a node knows a later term of the group", model.ErrUnavailable)

// receiveHeartbeat answers a heartbeat beside Raft's main goroutine, which may be writing, if
// it finds a follower in its term. Any other would change the state and the term under the
// main goroutine, and is left to that: a leader which waits for something to do would make
// its next entry in the term of the one that overruled it, and a follower's term could fall
// back behind one in which the main goroutine has just voted.
func (t *transport) receiveHeartbeat(d *decoder, respond func([]byte, error)) {
	req := d.appendRequest()
	committed, echoed := d.uvarint(), d.echo()
	if err := d.end(); err != nil {
		respond(nil, err)
		return
	}
	answers := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: req, RespChan: answers}
	now := echo{t.node.life, uint64(time.Since(t.node.beat.start))}
	handle, follows := t.heartbeat.Load(), t.follows(req.Term)
	if handle == nil || !isHeartbeat(req) || !follows && !t.queue(rpc) {
		respond(nil, errBusy)
		return
	}
	t.node.wg.Go(func() { // joined: Raft may save a term, which must not meet a closed log
		if follows {
			(*handle)(rpc)
		}
		a, ok := t.settle(answers, func(b []byte, err error) {
			if err == nil {
				b = putEcho(b, now)
			}
			respond(b, err)
		}).(*raft.AppendEntriesResponse)
		if ok && a.Success && echoed.life == now.life {
			t.fresh.heard(t.node.beat.start.Add(time.Duration(echoed.clock)), committed, t.consumed())
		}
	})
}
