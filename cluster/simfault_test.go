package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// faults are what the scheduler can do; each returns how it is mended, nil if there is
// nothing to mend or nothing was done.
var simFaultKinds = []struct {
	name string
	do   func(s *sim, name string) (mend func())
}{
	{"kill", func(s *sim, name string) func() { s.stop(name, true); return func() { s.revive(name) } }},
	{"power cut", func(s *sim, name string) func() { s.stop(name, false); return func() { s.revive(name) } }},
	{"power cut everywhere", (*sim).powerCutAll},
	{"alone", func(s *sim, name string) func() { return s.cutAll(name, true, true) }},
	{"deaf", func(s *sim, name string) func() { return s.cutAll(name, true, false) }},
	{"mute", func(s *sim, name string) func() { return s.cutAll(name, false, true) }},
	{"one way", (*sim).cutOne},
	{"pause", (*sim).pause},
	{"hung disk", (*sim).hangDisk},
	{"slow disk", (*sim).slowDisk},
	{"slow network", (*sim).slowNet},
	{"lost folder", (*sim).loseFolder},
	{"damaged tail", (*sim).damageTail},
	{"flush", (*sim).flushes},
}

func (s *sim) revive(name string) {
	if s.run(name) == nil {
		s.start(name)
	}
}

func (s *sim) powerCutAll(string) func() {
	for _, name := range s.names() {
		s.stop(name, false)
	}
	return func() {
		for _, name := range s.names() {
			s.revive(name)
		}
	}
}

// others are the addresses of the other nodes.
func (s *sim) others(name string) (addrs []string) {
	for _, other := range s.names() {
		if other != name {
			addrs = append(addrs, s.peers[other])
		}
	}
	return addrs
}

func (s *sim) cut(on bool, dirs ...[2]string) {
	s.net.change(func() {
		for _, d := range dirs {
			s.net.mu.cut[d] = on
		}
	})
}

// cutAll drops, in silence, what comes to a node, or what goes from it, or both.
func (s *sim) cutAll(name string, in, out bool) func() {
	var dirs [][2]string
	for _, other := range s.others(name) {
		if in {
			dirs = append(dirs, [2]string{other, s.peers[name]})
		}
		if out {
			dirs = append(dirs, [2]string{s.peers[name], other})
		}
	}
	s.cut(true, dirs...)
	return func() { s.cut(false, dirs...) }
}

func (s *sim) cutOne(name string) func() {
	others := s.others(name)
	dir := [2]string{s.peers[name], others[s.rng.IntN(len(others))]}
	s.cut(true, dir)
	return func() { s.cut(false, dir) }
}

func (s *sim) hangDisk(name string) func() {
	r := s.run(name)
	if r == nil {
		return nil
	}
	r.setHang(true)
	return func() { r.setHang(false) }
}

// pause is as near to SIGSTOP as one process comes: no byte goes to the network or the
// disk, but the node's timers run.
func (s *sim) pause(name string) func() {
	hang, cut := s.hangDisk(name), s.cutAll(name, true, true)
	return func() {
		cut()
		if hang != nil {
			hang()
		}
	}
}

func (s *sim) slowDisk(name string) func() {
	r := s.run(name)
	if r == nil {
		return nil
	}
	r.slow.Store(int64(400 * time.Millisecond))
	return func() { r.slow.CompareAndSwap(int64(400*time.Millisecond), int64(time.Millisecond)) }
}

func (s *sim) slowNet(name string) func() {
	set := func(slow time.Duration, lossy bool) {
		s.net.change(func() {
			for _, other := range s.others(name) {
				for _, d := range [][2]string{{s.peers[name], other}, {other, s.peers[name]}} {
					s.net.mu.slow[d], s.net.mu.lossy[d] = slow, lossy
				}
			}
		})
	}
	set(150*time.Millisecond, true)
	return func() { set(0, false) }
}

// sound tells whether all nodes have what they acknowledged, so that one may lose it.
func (s *sim) sound() bool {
	for _, name := range s.names() {
		r := s.run(name)
		if r == nil || !r.up.Load() || !r.node.whole() {
			return false
		}
		if me := r.node.identity.get(); len(me.Floors)+len(me.Lost) > 0 {
			return false
		}
	}
	return true
}

// loseFolder empties a node's disk, unless another has not recovered from that yet.
func (s *sim) loseFolder(name string) func() {
	if !s.sound() {
		return nil
	}
	s.stop(name, true)
	s.disks[name] = vfs.NewMem()
	s.trace.add(traceEvent{Node: name, Kind: "lost"})
	return func() { s.revive(name) }
}

// damageTail flips a bit of the last batch of a node's log, of which the node loses what it
// acknowledged.
func (s *sim) damageTail(name string) func() {
	if !s.sound() {
		return nil
	}
	s.stop(name, true)
	_, f, end := lastSegment(s.t, s.disks[name], "data")
	at, b := end-1-s.rng.Int64N(10), make([]byte, 1)
	_, err := f.ReadAt(b, at)
	b[0] ^= 1 << s.rng.IntN(8)
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		s.t.Error(err)
	}
	s.trace.add(traceEvent{Node: name, Kind: "damaged"})
	return func() { s.revive(name) }
}

// flushes makes blocks of what all nodes hold in memory.
func (s *sim) flushes(string) func() {
	for _, name := range s.names() {
		if r := s.run(name); r != nil && r.up.Load() {
			s.wg.Go(func() {
				ctx, cancel := context.WithTimeout(r.ctx, time.Second)
				defer cancel()
				_ = r.db.Flush(ctx) // what fails of it and matters, fails the node
			})
		}
	}
	return nil
}

// schedule draws faults and mends them, some while others last.
func (s *sim) schedule() {
	var mends []func()
	s.step(time.Second)
	for range simFaults {
		kind := simFaultKinds[s.rng.IntN(len(simFaultKinds))]
		name := s.names()[s.rng.IntN(len(s.peers))]
		s.trace.add(traceEvent{Node: name, Kind: "fault", Text: kind.name})
		if mend := kind.do(s, name); mend != nil {
			s.counts[kind.name]++
			mends = append(mends, func() {
				s.trace.add(traceEvent{Node: name, Kind: "mend", Text: kind.name})
				mend()
			})
		}
		s.step(time.Duration(100+s.rng.IntN(2500)) * time.Millisecond)
		for len(mends) > 1 || len(mends) > 0 && s.rng.IntN(3) > 0 {
			mends[0]()
			mends = mends[1:]
		}
		s.step(time.Duration(s.rng.IntN(1500)) * time.Millisecond)
	}
	for _, mend := range mends {
		mend()
	}
	s.step(time.Millisecond)
}

// step lets time pass, then brings back what has stopped itself.
func (s *sim) step(d time.Duration) {
	time.Sleep(d)
	for _, name := range s.names() {
		if r := s.run(name); r != nil && r.failed.Load() {
			s.stop(name, true)
			s.start(name)
		}
	}
}

// mended waits until every node has acknowledged a write and all replicas are equal.
func (s *sim) mended() error {
	began := time.Now()
	for _, name := range s.names() {
		for {
			s.step(50 * time.Millisecond)
			n := s.next.Add(1)
			s.ledger.sent[n] = true
			if r := s.run(name); r != nil && r.up.Load() && r.write(simBatch(n)) {
				s.ledger.acked[n] = true
				break
			}
			if time.Since(began) > simResume {
				return fmt.Errorf("%s acknowledges no write %v after the end of all faults", name, time.Since(began))
			}
		}
	}
	for {
		err := s.equal()
		if err == nil || time.Since(began) > simSettle {
			return err
		}
		s.step(200 * time.Millisecond)
	}
}

var errApart = errors.New("the replicas are not at the same entry")

// equal compares the hashes of all replicas.
func (s *sim) equal() error {
	var first []Hash
	for _, name := range s.names() {
		r := s.run(name)
		if !r.node.whole() {
			return fmt.Errorf("%w: %s is not a member of every group again", errApart, name)
		}
		// Every group, the metadata's too, has a leader that a majority confirms.
		if _, _, err := r.node.Sync(context.Background(), Wanted{Level: Linearizable, Held: true}); err != nil {
			return fmt.Errorf("%w: %s: %w", errApart, name, err)
		}
		hs, err := r.node.Hashes(context.Background())
		if err != nil {
			return err
		}
		if first == nil {
			first = hs
		}
		for i, h := range hs {
			if h.Index != first[i].Index {
				return fmt.Errorf("%w: shard %d is at %d on n1 and at %d on %s", errApart, i, first[i].Index, h.Index, name)
			}
			if h != first[i] {
				s.t.Errorf("shard %d at entry %d: %s on n1, %s on %s", i, h.Index, first[i].Hash, h.Hash, name)
			}
		}
	}
	return nil
}

// judge looks for what is lost, undone or phantom on every node.
func (s *sim) judge() {
	for _, name := range s.names() {
		got := map[int64]int{}
		if err := s.run(name).read(context.Background(), "m", func(ls labels.Labels, c *model.Columns) {
			for i, t := range c.T {
				n := t / 1000
				if want := fmt.Sprint(n % 4); !s.ledger.sent[n] || ls.Get("w") != want || fmt.Sprint(c.V[i]) != fmt.Sprint(float64(n)*10+float64(ls.Get("s")[0]-'0')) {
					s.t.Errorf("phantom on %s: %s at %d: %v", name, ls, t, c.V[i])
				}
				got[n]++
			}
		}); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		for n := range s.ledger.acked {
			if got[n] != simSeries {
				s.t.Errorf("lost on %s: write %d has %d of %d samples", name, n, got[n], simSeries)
			}
		}
		for _, c := range s.corrections {
			if err := s.readCorrections(c, s.run(name)); err != nil {
				s.t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// simulate runs one seed in a bubble.
func simulate(t *testing.T, seed uint64) *sim {
	s := newSim(t, seed)
	defer func() {
		for _, name := range s.names() {
			s.stop(name, true)
		}
		s.wg.Wait()
	}()
	for _, name := range s.names() {
		<-s.run(name).opened
	}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	var clients sync.WaitGroup
	for i := range 2 {
		clients.Go(func() { s.client(rand.New(rand.NewPCG(seed, uint64(10+i)))) })
	}
	for i := range 3 {
		clients.Go(func() { s.register(i, rand.New(rand.NewPCG(seed, uint64(20+i)))) })
	}
	for i, c := range s.corrections {
		clients.Go(func() { s.correct(c, rand.New(rand.NewPCG(seed, uint64(30+i)))) })
	}
	s.schedule()
	cancel()
	clients.Wait()
	if err := s.mended(); err != nil {
		t.Errorf("no life after the faults: %v", err)
		return s
	}
	synctest.Wait()
	s.judge()
	if res := porcupine.CheckOperationsTimeout(registerModel, s.history.ops, 0); res != porcupine.Ok {
		t.Errorf("the register's history of %d operations is %s", len(s.history.ops), res)
	}
	for i := range simShards {
		for _, name := range s.names() {
			index, sum, err := s.run(name).node.replicas.Shard(i).Hash(context.Background())
			if err != nil {
				t.Error(err)
			}
			s.trace.add(traceEvent{Node: name, Kind: "hash", Group: uint64(i), Index: index, Text: fmt.Sprintf("%016x", sum)})
		}
	}
	return s
}

// simFound are seeds behind the usual ones that have found something: two flushes that
// waited for one disk, a tail that was overruled right above the place of a flush, and a
// flush that waited for an install that another node kept waiting, and a leader that did not
// hear it was one no more, and an attempt of a write that went out when its bytes had another use.
func simFound() []uint64 { return []uint64{4677, 7082, 21656, 90382, 100431} }

// TestSimulation runs three nodes on virtual time under faults that a seed draws:
// nothing acknowledged is lost, or undone by what was written before it, nothing is there that
// was never sent, a register is linearizable, stale reads are as fresh as they say, replicas are
// equal at the same entry, and when the faults end all nodes take writes again. What Raft
// draws is not the seed's, so a run that fails saves its trace: see TestReplay.
func TestSimulation(t *testing.T) {
	var total struct {
		sync.Mutex
		acked, corrections, ops, stale int
		counts                         map[string]int
	}
	total.counts = map[string]int{}
	var seeds []uint64
	if *simFirst == 0 {
		seeds = simFound()
	}
	for seed := *simFirst; seed < *simFirst+*simSeeds; seed++ {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := simulate(t, seed)
				if t.Failed() {
					s.trace.save(t)
				}
				total.acked += len(s.ledger.acked)
				for _, c := range s.corrections {
					total.corrections += c.mu.acked
				}
				total.ops += len(s.history.ops)
				total.stale += s.history.stale
				for k, n := range s.counts {
					total.counts[k] += n
				}
			})
		}) {
			break
		}
	}
	t.Logf("%d seeds: %d writes and %d corrections acknowledged, %d operations on the register, %d stale reads, faults: %v", len(seeds), total.acked, total.corrections, total.ops, total.stale, total.counts)
}
