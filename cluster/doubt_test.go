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

// TestFloors: of the ends of logs that others tell the furthest is the floor, and who
// must be heard.
func TestFloors(t *testing.T) {
	servers := func(names ...string) []byte {
		var c raft.Configuration
		for _, s := range names {
			c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(s), Address: raft.ServerAddress(s + ":1")})
		}
		return raft.EncodeConfiguration(c)
	}
	one := func(id raft.ServerID, doubts bool, members []byte) *tails {
		return &tails{id: id, doubts: doubts, groups: map[uint64]tail{7: {members: members}}}
	}
	three, five := servers("a", "b", "c"), servers("a", "b", "c", "d", "e")
	for _, x := range []struct {
		name    string
		mine    *tails
		heard   []*tails
		missing string
	}{
		{"none heard", one("a", true, three), nil, "b c"},
		{"one of two", one("a", true, three), []*tails{one("b", false, three)}, "c"},
		{"both", one("a", true, three), []*tails{one("b", false, three), one("c", true, three)}, ""},
		{"five: three sure ones", one("a", true, five), []*tails{one("b", false, five), one("c", false, five), one("d", false, five)}, ""},
		{"five: one of three in doubt", one("a", true, five), []*tails{one("b", false, five), one("c", true, five), one("d", false, five)}, "e"},
		{"members unknown", one("a", true, nil), nil, "any member"},
		{"members unknown here", one("a", true, nil), []*tails{one("b", false, three)}, "c"},
		{"more members there", one("a", true, servers("a", "b")), []*tails{one("b", false, three)}, "c"},
		{"alone", one("a", true, servers("a")), nil, ""},
		{"another folder at the address", one("a", true, three), []*tails{one("b2", false, nil), one("c", false, three)}, "b"},
	} {
		heard := map[raft.ServerID]*tails{}
		for _, h := range x.heard {
			heard[h.id] = h
		}
		if got := strings.Join(unheard(x.mine, heard), " "); got != x.missing {
			t.Errorf("%s: waits for %q, want %q", x.name, got, x.missing)
		}
	}
}

func FuzzTails(f *testing.F) {
	b := putBool(putBytes(nil, "n1@00"), true)
	f.Add(putBytes(putUvarints(b, 3, 4, 4, 100), raft.EncodeConfiguration(raft.Configuration{})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := parseTails(b); err == nil {
			membersOf(x, map[raft.ServerID]*tails{"other": x})
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
