package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/clock"
	"github.com/strandline-db/strandline/wal/vfs"
)

var (
	simSeeds = flag.Uint64("seeds", 200, "how many seeds TestSimulation runs")
	simFirst = flag.Uint64("first-seed", 0, "the first of them")
)

const (
	simShards  = 2
	simSegment = 16 << 10
	simFaults  = 5                // a seed
	simResume  = 30 * time.Second // from the end of the faults to a write at every node, at most
	simSettle  = 60 * time.Second // and to equal replicas
	simPatient = 2 * time.Second  // of a client
)

// sim is three nodes on virtual time, over a network and disks that fail by a seed.
type sim struct {
	t     *testing.T
	rng   *rand.Rand
	net   *simNet
	trace *trace
	peers map[string]string
	ctx   context.Context // of the clients
	wg    sync.WaitGroup  // runs that end
	mu    struct {
		sync.Mutex
		runs map[string]*simRun // those that are up, or coming up
	}
	disks map[string]*vfs.MemFS // of the nodes; the scheduler's own

	next   atomic.Int64 // number of the next write
	ledger struct {
		sync.Mutex
		sent, acked map[int64]bool
	}
	history struct {
		sync.Mutex
		cells   int
		unknown int
		stale   int // reads that were checked for their age
		ops     []porcupine.Operation
	}
	corrections []*corrections
	counts      map[string]int
}

// simRun is one life of a node.
type simRun struct {
	proc   *simProc
	db     *engine.DB
	node   *Node
	opened chan struct{} // closed when db and node are there, or will never be
	up     atomic.Bool
	ghost  atomic.Bool // dead: what it does now was never done
	failed atomic.Bool // it stopped itself
	cancel context.CancelFunc
	ctx    context.Context
	slow   atomic.Int64 // at most, a sync of the log takes, in nanoseconds
	hang   atomic.Pointer[chan struct{}]
	rng    struct {
		sync.Mutex
		*rand.Rand
	}
}

// sync is what the disk does before a file is synced, or one of the log's goes: only the log's
// may take time, since others are synced under locks of which a bubble can't tell who waits.
func (r *simRun) sync(op vfs.Op) error {
	file := (op.Kind == vfs.OpSync || op.Kind == vfs.OpRemove) && strings.HasSuffix(op.Path, ".wal")
	if folder := op.Kind == vfs.OpSyncDir && op.Path == "data/wal"; !file && !folder {
		return nil
	}
	if d := r.slow.Load(); d > 0 {
		r.rng.Lock()
		d = r.rng.Int64N(d)
		r.rng.Unlock()
		select {
		case <-time.After(time.Duration(d)):
		case <-r.ctx.Done():
		}
	}
	if hang := r.hang.Load(); hang != nil {
		<-*hang
	}
	return nil
}

func (r *simRun) setHang(on bool) {
	if on {
		hang := make(chan struct{})
		r.hang.CompareAndSwap(nil, &hang)
	} else if hang := r.hang.Swap(nil); hang != nil {
		close(*hang)
	}
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 2)), trace: &trace{began: time.Now()}, disks: map[string]*vfs.MemFS{}, counts: map[string]int{}}
	s.net = newSimNet(rand.New(rand.NewPCG(seed, 3)), s.trace.delivered)
	s.peers = map[string]string{"n1": "n1:1", "n2": "n2:1", "n3": "n3:1"}
	s.mu.runs = map[string]*simRun{}
	s.corrections = []*corrections{{name: "c0"}, {name: "c1"}}
	s.ledger.sent, s.ledger.acked = map[int64]bool{}, map[int64]bool{}
	for _, name := range s.names() {
		s.disks[name] = vfs.NewMem()
		s.start(name)
	}
	return s
}

func (s *sim) names() []string { return slices.Sorted(maps.Keys(s.peers)) }

// start begins a life of a node.
func (s *sim) start(name string) {
	r := &simRun{opened: make(chan struct{}), proc: &simProc{n: s.net, addr: s.peers[name]}}
	r.rng.Rand = rand.New(rand.NewPCG(s.rng.Uint64(), 4))
	r.slow.Store(int64(time.Millisecond))
	r.ctx, r.cancel = context.WithCancel(context.Background())
	level := slog.LevelError
	if os.Getenv("CLUSTER_LOG") != "" {
		level = slog.LevelDebug
	}
	disk := s.disks[name]
	o := Options{Name: name, Listen: s.peers[name], Peers: s.peers, Dir: "data", Network: r.proc, TrailingLogs: 4, CommitTimeout: simPatient,
		FS:     vfs.NewFault(disk, r.sync),
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: level})).With("node", name),
		tap:    &runTap{x: s.trace, node: name, run: r, fs: disk}}
	s.mu.Lock()
	s.mu.runs[name] = r
	s.mu.Unlock()
	s.wg.Go(func() {
		defer close(r.opened)
		db, err := engine.Open(o.Dir, &engine.Options{
			Shards: simShards, Retention: -1, MinFreeBytes: -1, SegmentBytes: simSegment, Logger: o.Logger, FS: o.FS, Clock: clock.NewManual(time.Now()),
			OnFailure: func(err error) {
				if !r.ghost.Load() && !errors.Is(err, errStalled) && !errors.Is(err, errOverruled) {
					s.t.Errorf("%s failed: %v", name, err)
				}
				r.failed.Store(true)
			},
			Replicate: func(rs *engine.Replicas) (engine.Committer, error) {
				s.traceStart(o.tap.(*runTap), rs)
				n, err := Start(r.ctx, &o, rs)
				r.node = n
				return n, err
			},
		})
		if err != nil {
			if r.ctx.Err() == nil {
				s.t.Errorf("%s does not start: %v", name, err)
			}
			return
		}
		r.db = db
		r.up.Store(true)
	})
}

// traceStart notes what a node found on its disk.
func (s *sim) traceStart(p *runTap, rs *engine.Replicas) {
	e := traceEvent{Kind: "start"}
	for i := range rs.Len() {
		m := rs.Shard(i).Manifest()
		e.State = append(e.State, traceState{rs.Log().Base(wal.StreamID(i)), rs.Log().Last(wal.StreamID(i)), m.Applied})
	}
	for i := range rs.Len() {
		if rs.Shard(i).Manifest().Installed {
			if err := p.found(i, rs.Shard(i)); err != nil {
				s.t.Error(err)
			}
		}
	}
	e.State = append(e.State, traceState{rs.Log().Base(metaStream), rs.Log().Last(metaStream), 0})
	p.add(e)
}

// stop ends a node's life: killed, with everything that it wrote, or by a power cut,
// which leaves any part of what it had not synced.
func (s *sim) stop(name string, killed bool) {
	s.mu.Lock()
	r := s.mu.runs[name]
	delete(s.mu.runs, name)
	s.mu.Unlock()
	if r == nil {
		return
	}
	r.ghost.Store(true)
	kept := 100
	if !killed {
		kept = s.rng.IntN(101)
	}
	s.disks[name] = s.disks[name].CrashClone(s.rng, kept)
	s.trace.add(traceEvent{Node: name, Kind: "stop", Text: fmt.Sprintf("%d %% of what was not synced is kept", kept)})
	r.up.Store(false)
	r.proc.end(killed)
	r.cancel()
	r.slow.Store(0)
	r.setHang(false)
	synctest.Wait() // so that Raft has nothing in hand, of which it never answers when it is shut down
	s.wg.Go(func() {
		<-r.opened
		if r.db != nil {
			if err := r.db.Close(); err != nil && !r.failed.Load() {
				s.t.Errorf("closing %s: %v", name, err)
			}
		}
	})
}

func (s *sim) run(name string) *simRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.runs[name]
}

// anyUp picks a node that serves; nil if none does.
func (s *sim) anyUp(rng *rand.Rand) *simRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	var up []*simRun
	for _, name := range s.names() {
		if r := s.mu.runs[name]; r != nil && r.up.Load() {
			up = append(up, r)
		}
	}
	if len(up) == 0 {
		return nil
	}
	return up[rng.IntN(len(up))]
}

const simSeries = 3

// batch is write number n: a sample of each of a few series.
func simBatch(n int64) *model.Batch {
	b := &model.Batch{}
	for i := range simSeries {
		ls := labels.FromStrings("__name__", "m", "s", fmt.Sprint(i), "w", fmt.Sprint(n%4))
		b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, ls), From: i, To: i + 1})
		b.T, b.V = append(b.T, n*1000), append(b.V, float64(n)*10+float64(i))
	}
	return b
}

// write sends a batch to a node until the client's patience ends; true if the node
// acknowledged it and had not died before.
func (r *simRun) write(b *model.Batch) bool {
	ctx, cancel := context.WithTimeout(r.ctx, simPatient)
	defer cancel()
	res, err := r.db.Append(ctx, b)
	return err == nil && res.Samples == len(b.T) && !r.ghost.Load()
}

// client writes, retrying at other nodes, until the faults end.
func (s *sim) client(rng *rand.Rand) {
	for s.ctx.Err() == nil {
		n := s.next.Add(1)
		b := simBatch(n)
		s.ledger.Lock()
		s.ledger.sent[n] = true
		s.ledger.Unlock()
		for try := range 4 {
			r := s.anyUp(rng)
			if r != nil && r.write(b) {
				s.ledger.Lock()
				s.ledger.acked[n] = true
				s.ledger.Unlock()
				break
			}
			s.sleep(time.Duration(50*(try+1)) * time.Millisecond)
		}
		s.sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
	}
}

// sleep waits, or until the clients are to end.
func (s *sim) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}

// The register is one series: a write adds the sample of its own millisecond, a read
// gives all that are there.
const (
	simCells   = 40 // writes to the register, at most
	simUnknown = 12 // of which so many may have an outcome that nobody knows: they cost the judge time
)

type registerInput struct {
	cell int // -1: a read
}

var registerModel = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		if c := input.(registerInput).cell; c >= 0 {
			return true, state.(uint64) | 1<<c
		}
		return output.(uint64) == state.(uint64), state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %x", input, output) },
}

func (s *sim) register(client int, rng *rand.Rand) {
	for s.ctx.Err() == nil {
		r := s.anyUp(rng)
		switch {
		case r == nil:
		case rng.IntN(2) == 0:
			s.registerWrite(client, r)
		case rng.IntN(2) == 0:
			s.registerStale(r)
		default:
			s.registerRead(client, r)
		}
		s.sleep(time.Duration(50+rng.IntN(250)) * time.Millisecond)
	}
}

func (s *sim) registerWrite(client int, r *simRun) {
	s.history.Lock()
	cell := s.history.cells
	if cell >= simCells || s.history.unknown >= simUnknown {
		s.history.Unlock()
		return
	}
	s.history.cells++
	s.history.Unlock()
	b := &model.Batch{T: []int64{int64(cell)}, V: []float64{1}}
	b.Series = []model.BatchSeries{{Key: model.AppendKey(nil, labels.FromStrings("__name__", "reg")), To: 1}}
	op := porcupine.Operation{ClientId: client, Input: registerInput{cell}, Output: uint64(0), Call: int64(time.Since(s.trace.began))}
	ok := r.write(b)
	op.Return = int64(time.Since(s.trace.began))
	s.history.Lock()
	defer s.history.Unlock()
	if !ok {
		op.Return = math.MaxInt64 // it may still happen
		s.history.unknown++
	}
	s.history.ops = append(s.history.ops, op)
}

func (s *sim) registerRead(client int, r *simRun) {
	ctx, cancel := context.WithTimeout(r.ctx, simPatient)
	defer cancel()
	op := porcupine.Operation{ClientId: client, Input: registerInput{-1}, Call: int64(time.Since(s.trace.began))}
	seen, _, err := r.cells(ctx, Wanted{Level: Linearizable})
	if err != nil || r.ghost.Load() {
		return
	}
	op.Output, op.Return = seen, int64(time.Since(s.trace.began))
	s.history.Lock()
	defer s.history.Unlock()
	s.history.ops = append(s.history.ops, op)
}

// cells reads the register.
func (r *simRun) cells(ctx context.Context, w Wanted) (seen uint64, age time.Duration, err error) {
	ctx, age, err = r.node.Sync(ctx, w)
	if err != nil {
		return 0, age, err
	}
	err = r.read(ctx, "reg", func(_ labels.Labels, c *model.Columns) {
		for _, t := range c.T {
			seen |= 1 << t
		}
	})
	return seen, age, err
}

// registerStale reads what a node has, which must be as fresh as the node says.
func (s *sim) registerStale(r *simRun) {
	ctx, cancel := context.WithTimeout(r.ctx, simPatient)
	defer cancel()
	began := time.Since(s.trace.began)
	seen, age, err := r.cells(ctx, Wanted{Level: Stale, MaxStaleness: 500 * time.Millisecond})
	if err != nil || r.ghost.Load() || age <= 0 { // 0: it was read as at level Leader
		return
	}
	s.history.Lock()
	defer s.history.Unlock()
	s.history.stale++
	for _, op := range s.history.ops {
		if c := op.Input.(registerInput).cell; c >= 0 && op.Return < int64(began-age) && seen&(1<<c) == 0 {
			s.t.Errorf("%s says at %v that what it has is %v old, and lacks what was acknowledged at %v", r.proc.addr, began, age, time.Duration(op.Return))
		}
	}
}

// read gives fn every series of a metric.
func (r *simRun) read(ctx context.Context, name string, fn func(labels.Labels, *model.Columns)) error {
	sel, err := model.Select(ctx, r.node.Reader(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", name)}})
	if err != nil {
		return err
	}
	defer sel.Close()
	for _, x := range sel.Series {
		var c model.Columns
		if err := x.Read(&c); err != nil {
			return err
		}
		fn(x.Labels(), &c)
	}
	return nil
}
