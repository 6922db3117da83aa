package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/wal/vfs"
)

// memDisks gives each node a file system that a power cut can be asked of.
type memDisks struct {
	mu struct {
		sync.Mutex
		by map[string]*vfs.MemFS
	}
}

func (d *memDisks) of(name string) vfs.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.by == nil {
		d.mu.by = map[string]*vfs.MemFS{}
	}
	if d.mu.by[name] == nil {
		d.mu.by[name] = vfs.NewMem()
	}
	return d.mu.by[name]
}

// lastSegment returns the end of what is in a node's log.
func lastSegment(t testing.TB, fsys vfs.FS, dir string) (name string, f vfs.File, end int64) {
	t.Helper()
	names, err := fsys.List(path.Join(dir, "wal"))
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(s string) bool { return !strings.HasSuffix(s, ".wal") })
	name = path.Join(dir, "wal", names[len(names)-1])
	b, err := vfs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	for end = int64(len(b)); end > 0 && b[end-1] == 0; end-- {
		continue
	}
	if f, err = fsys.OpenReadWrite(name); err != nil {
		t.Fatal(err)
	}
	return name, f, end
}

// damage flips a bit of the last batch in a stopped node's log, or cuts bytes off.
func (c *trio) damage(name string, flip bool, back int64) {
	c.t.Helper()
	fsys := vfs.FS(vfs.OS{})
	if c.disk != nil {
		fsys = c.disk(name)
	}
	file, f, end := lastSegment(c.t, fsys, filepath.Join(c.dir, name))
	if flip {
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, end-back); err != nil {
			c.t.Fatal(err)
		}
		b[0] ^= 4
		if _, err := f.WriteAt(b, end-back); err != nil {
			c.t.Fatal(err)
		}
	} else if err := f.Truncate(end - back); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("%s: damaged %s %d bytes before its end at %d", name, file, back, end)
}

// TestLostTail: what a node acknowledged together with the leader alone survives when
// that node loses its last batch and the leader is away: the node does not vote for the
// third one, which lacks it, until it has heard the leader's log.
func TestLostTail(t *testing.T) {
	for _, flip := range []bool{true, false} {
		c := newTrio(t, Options{CommitTimeout: 2 * time.Second})
		c.mustWrite("n1", 0, 10)
		c.checkAll()
		c.stop("n3") // n3 lacks what follows
		c.mustWrite("n1", 100, 10)
		c.stop("n1")
		c.stop("n2")
		c.damage("n2", flip, 10)

		opened := make(chan *member, 1)
		go func() {
			m, err := c.open("n2")
			if err != nil {
				t.Errorf("n2: %v", err)
			}
			opened <- m
		}()
		c.start("n3")
		if err := c.write("n3", 200, 1); err == nil {
			t.Fatal("n2 and n3 made a majority without the log that n2 lost")
		}
		select {
		case <-opened:
			t.Fatal("n2 took part before it had heard all others")
		default:
		}
		c.start("n1")
		c.nodes["n2"] = <-opened
		c.mustWrite("n3", 300, 10)
		c.checkAll()
		for deadline := time.Now().Add(20 * time.Second); len(c.nodes["n2"].node.identity.get().Floors) > 0; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("floors stay: %v", c.nodes["n2"].node.identity.get().Floors)
			}
		}
		c.stop("n1") // n2 must count again
		c.mustWrite("n2", 400, 10)
		c.checkAll()
		for _, name := range []string{"n2", "n3"} {
			c.stop(name)
		}
	}
}

// TestDoubtOnAll: three nodes whose last batches are all damaged come back by themselves.
func TestDoubtOnAll(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 20)
	c.checkAll() // so that the last batches, which are lost, hold nothing but what was sent after
	c.acked = map[string]map[int64]uint64{}
	for name := range c.peers {
		c.stop(name)
		c.damage(name, true, 5)
	}
	c.startAll()
	c.mustWrite("n1", 100, 10)
	c.checkAll()
}

// TestPowerCutOnAll: three nodes lose power at once under writes, and come back with all
// that was acknowledged.
func TestPowerCutOnAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 34))
	disks := &memDisks{}
	c := newTrioOn(t, Options{}, disks.of)
	for round := range int64(4) {
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for w, name := range []string{"n1", "n2", "n3"} {
			wg.Go(func() {
				for i := int64(0); ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					if c.write(name, round*100000+int64(w)*10000+i, 1) != nil {
						return
					}
				}
			})
		}
		time.Sleep(150 * time.Millisecond) // of writes
		// What is acknowledged after this instant may be gone.
		c.mu.Lock()
		acked := map[string]map[int64]uint64{}
		for key, samples := range c.acked {
			acked[key] = map[int64]uint64{}
			for at, v := range samples {
				acked[key][at] = v
			}
		}
		cuts := map[string]*vfs.MemFS{}
		for name := range c.peers {
			cuts[name] = disks.of(name).(*vfs.MemFS).CrashClone(rng, 50)
		}
		c.mu.Unlock()
		close(stop)
		wg.Wait()
		for name := range c.peers {
			c.stop(name)
		}
		disks.mu.Lock()
		disks.mu.by = cuts
		disks.mu.Unlock()
		c.acked = acked
		c.startAll()
		c.checkAll()
	}
}

// TestWhoMustAnswer: a node in doubt must hear all members of the newest configuration that is
// known to be committed and of those behind it, and nobody else.
func TestWhoMustAnswer(t *testing.T) {
	// members are a configuration: one without a vote ends in "-".
	members := func(index uint64, names ...string) configured {
		var c raft.Configuration
		for _, s := range names {
			id, without := strings.CutSuffix(s, "-")
			x := raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(nodeOf(raft.ServerID(id)))}
			if without {
				x.Suffrage = raft.Nonvoter
			}
			c.Servers = append(c.Servers, x)
		}
		return configured{index, raft.EncodeConfiguration(c)}
	}
	sure := func(id raft.ServerID, cs ...configured) *tails {
		return &tails{id: id, groups: map[uint64]tail{7: {members: cs}}}
	}
	lost := func(id raft.ServerID, cs ...configured) *tails {
		x := sure(id, cs...)
		x.doubts = true
		return x
	}
	left := func(id raft.ServerID) *tails { return &tails{id: id, groups: map[uint64]tail{}} }
	all := func(t ...*tails) []*tails { return t }
	three, five := members(1, "a", "b", "c"), members(1, "a", "b", "c", "d", "e")
	without, coming, again := members(20, "a", "b"), members(30, "a", "b", "c@2-"), members(40, "a", "b", "c@2")
	for _, x := range []struct {
		name    string
		mine    *tails
		heard   []*tails
		holders string // by the map
		missing string
	}{
		{"none", lost("a", three), nil, "a b c", "b c"},
		{"one of two", lost("a", three), all(sure("b", three)), "a b c", "c"},
		{"both", lost("a", three), all(sure("b", three), lost("c", three)), "a b c", ""},
		{"of five all, since a leader that is not asked counts lost acknowledgements", lost("a", five),
			all(sure("b", five), sure("c", five), sure("d", five)), "a b c d e", "e"},
		{"the dead one of five taken out", lost("a", five), all(sure("b", members(9, "a", "b", "c", "d")), sure("c", five), sure("d", five)), "a b c d", ""},
		{"another folder in the place of one", lost("a", three), all(sure("b", three), sure("c@2")), "a b c", "c"},
		{"one that holds the group no longer", lost("a", three), all(sure("b", three), left("c")), "a b c", "c"},

		{"one taken out", lost("a", three), all(sure("b", without)), "a b c", ""},
		{"its removal not known to be committed", lost("a", three), all(sure("b", three, without)), "a b c", "c"},
		{"taken in anew, without a vote", lost("a", three), all(sure("b", without, coming)), "a b c", "c@2"},
		{"taken in anew, heard", lost("a", three), all(sure("b", without, coming), sure("c@2")), "a b c", ""},
		{"with a vote perhaps", lost("a", three), all(sure("b", coming, again)), "a b c", "c@2"},
		{"with a vote, heard", lost("a", three), all(sure("b", again), sure("c@2", coming, again)), "a b c", ""},
		{"the one that is back knows most", lost("a", three), all(sure("c@2", again)), "a b c", "b"},
		{"one that doubts its log knows of none who may have come", lost("a", without), all(lost("b", without)), "a b c", "c"},
		{"nor does it know that one is gone", lost("a", three), all(lost("b", without)), "a b", ""},

		{"members unknown", lost("a"), nil, "a", "any member of shard 7"},
		{"members unknown here", lost("a"), all(sure("b", three)), "a b c", "c"},
		{"more members there", lost("a", without), all(sure("b", members(50, "a", "b", "c"))), "a b", "c"},
		{"left to this one, then others came", lost("a", members(1, "a")), nil, "a b c", "b c"},
		{"and one tells of them", lost("a", members(1, "a")), all(sure("b", again)), "a b c", "c@2"},
		{"alone", lost("a", members(1, "a")), nil, "a", ""},
	} {
		heard := map[raft.ServerID]*tails{}
		for _, h := range x.heard {
			heard[h.id] = h
		}
		holders := func(uint64) []string { return strings.Fields(x.holders) }
		if got := strings.Join(unheard(x.mine, heard, holders), " "); got != x.missing {
			t.Errorf("%s: waits for %q, want %q", x.name, got, x.missing)
		}
	}
}

func FuzzTails(f *testing.F) {
	b := putBool(putBytes(nil, "n1@00"), true)
	f.Add(putBytes(putUvarints(b, 3, 4, 4, 100, 1, 9), raft.EncodeConfiguration(raft.Configuration{})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := parseTails(b); err == nil {
			unheard(x, map[raft.ServerID]*tails{"other": x}, func(uint64) []string { return nil })
		}
	})
}

// TestTailsAwaitLate: a leader does not say how far its log goes before it has made durable
// what it has sent out: the one that asks may have acknowledged that and lost it, and its word
// counts when the leader's log has come to it.
func TestTailsAwaitLate(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	leader, follower := c.leaderOf(0)
	l, f := c.nodes[leader], c.nodes[follower].node
	release := make(chan struct{})
	l.hang.Store(&release)
	durable := l.node.replicas.Log().Last(0)
	g := l.node.group(0)
	entry := until(g, g.raft.Apply(g.join(nil, nil), time.Second))
	ended := func() uint64 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		b, err := f.link(leader).call(ctx, kindTails, 0, nil)
		if err != nil {
			return 0
		}
		said, err := parseTails(b)
		if err != nil {
			t.Fatal(err)
		}
		return said.groups[0].end.Index
	}
	c.await("the follower to have the entry", func() error {
		if f.replicas.Log().Last(0) <= durable {
			return errors.New("not yet")
		}
		return nil
	})
	if end := ended(); end != 0 && end <= durable {
		t.Errorf("the leader says that its log ends at %d, while a follower has what it sent behind that", end)
	}
	l.hang.Store(nil)
	close(release)
	if err := entry.Error(); err != nil {
		t.Log(err) // it was away for too long, on a slow machine
	}
	c.await("the leader's answer", func() error {
		if end := ended(); end <= durable {
			return fmt.Errorf("ends at %d", end)
		}
		return nil
	})
	c.checkAll()
}
