package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// trio is three nodes in this process, and what they have acknowledged.
type trio struct {
	t       testing.TB
	ctx     context.Context // of opening
	dir     string
	net     *memNetwork
	peers   map[string]string
	joining map[string]string // nodes that enter, and at which address
	alone   bool              // no node has others on its list
	opts    Options
	engine  func(name string, o *engine.Options) // nil: nothing to change
	disk    func(name string) vfs.FS             // nil: the machine's
	nodes   map[string]*member
	onPhase atomic.Pointer[func(*Node, *Move)]
	next    atomic.Int64 // time of a write under load
	mu      sync.Mutex
	acked   map[string]map[int64]uint64 // series, time, value: must be there
	sent    map[string]map[int64]uint64 // may be there
}

type member struct {
	db   *engine.DB
	node *Node
	hang atomic.Pointer[chan struct{}] // syncs of the log wait for it; nil: they don't
}

// sync is what a node's file system does before it syncs a file.
func (m *member) sync(op vfs.Op) error {
	if hang := m.hang.Load(); hang != nil && op.Kind == vfs.OpSync && strings.HasSuffix(op.Path, ".wal") {
		<-*hang
	}
	return nil
}

func newTrio(t testing.TB, o Options) *trio { return newTrioOn(t, o, nil) }

func newTrioOn(t testing.TB, o Options, disk func(name string) vfs.FS) *trio {
	c := emptyTrio(t, o, disk)
	c.startAll()
	return c
}

// emptyTrio has started no node.
func emptyTrio(t testing.TB, o Options, disk func(name string) vfs.FS) *trio {
	c := &trio{disk: disk, t: t, ctx: context.Background(), dir: t.TempDir(), net: newMemNetwork(), opts: o, joining: map[string]string{}, nodes: map[string]*member{}, acked: map[string]map[int64]uint64{}, sent: map[string]map[int64]uint64{}}
	c.peers = map[string]string{"n1": "n1:1", "n2": "n2:1", "n3": "n3:1"}
	t.Cleanup(func() {
		for name := range c.peers {
			c.stop(name)
		}
	})
	return c
}

// startAll starts all nodes at once.
func (c *trio) startAll() {
	c.t.Helper()
	var wg sync.WaitGroup
	for name := range c.peers {
		wg.Go(func() {
			m, err := c.open(name)
			if err != nil {
				c.t.Errorf("%s: %v", name, err)
				return
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.nodes[name] = m
		})
	}
	wg.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

func (c *trio) open(name string) (*member, error) {
	m := &member{}
	o := c.opts
	o.Name, o.Listen, o.Dir = name, c.peers[name], filepath.Join(c.dir, name)
	if o.Join = c.joining[name]; o.Join == "" {
		o.Peers = map[string]string{"n1": c.peers["n1"], "n2": c.peers["n2"], "n3": c.peers["n3"]}
	}
	if c.alone {
		o.Peers = map[string]string{name: c.peers[name]}
	}
	if o.Network == nil {
		o.Network = memHost{c.net, c.peers[name]}
	}
	o.Heartbeat = 100 * time.Millisecond
	o.onPhase = func(n *Node, m *Move) {
		if fn := c.onPhase.Load(); fn != nil {
			(*fn)(n, m)
		}
	}
	level := slog.LevelWarn
	if os.Getenv("CLUSTER_LOG") != "" {
		level = slog.LevelDebug
	}
	o.Logger = slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: level})).With("node", name)
	o.FS = vfs.OS{}
	if c.disk != nil {
		o.FS = c.disk(name)
	}
	ctx, cancel := context.WithTimeout(c.ctx, 20*time.Second)
	defer cancel()
	eo := &engine.Options{
		Shards: 4, Retention: -1, Logger: o.Logger, FS: vfs.NewFault(o.FS, m.sync), SegmentBytes: 1 << 20,
		OnFailure: func(err error) { c.t.Errorf("%s failed: %v", name, err) },
		Replicate: func(r *engine.Replicas) (engine.Committer, error) {
			n, err := Start(ctx, &o, r)
			m.node = n
			return n, err
		},
	}
	if c.engine != nil {
		c.engine(name, eo)
	}
	db, err := engine.Open(o.Dir, eo)
	m.db = db
	return m, err
}

func (c *trio) start(name string) {
	c.t.Helper()
	m, err := c.open(name)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[name] = m
}

func (c *trio) stop(name string) {
	c.mu.Lock()
	m := c.nodes[name]
	delete(c.nodes, name)
	c.mu.Unlock()
	if m == nil {
		return
	}
	if err := m.db.Close(); err != nil {
		c.t.Errorf("closing %s: %v", name, err)
	}
}

// write sends n samples of each of ten series to a node, and notes what it acknowledges.
func (c *trio) write(to string, from int64, n int) error { return c.writeAt(c.nodes[to], from, n) }

func (c *trio) writeAt(m *member, from int64, n int) error {
	b := &model.Batch{}
	for s := range 10 {
		ls := labels.FromStrings("__name__", "m", "s", fmt.Sprint(s))
		bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(b.T)}
		for i := range int64(n) {
			b.T, b.V = append(b.T, (from+i)*1000), append(b.V, float64(s)+float64(from+i)/7)
		}
		bs.To = len(b.T)
		b.Series = append(b.Series, bs)
	}
	c.note(c.sent, b)
	res, err := m.db.Append(context.Background(), b)
	if err != nil {
		return err
	}
	if res.Samples != len(b.T) || len(res.Rejected) > 0 {
		return fmt.Errorf("%d of %d samples stored, %v", res.Samples, len(b.T), res.Rejected)
	}
	c.note(c.acked, b)
	return nil
}

func (c *trio) note(in map[string]map[int64]uint64, b *model.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, bs := range b.Series {
		key := model.KeyLabels(bs.Key).String()
		if in[key] == nil {
			in[key] = map[int64]uint64{}
		}
		for i := bs.From; i < bs.To; i++ {
			in[key][b.T[i]] = math.Float64bits(b.V[i])
		}
	}
}

func (c *trio) mustWrite(to string, from int64, n int) {
	c.t.Helper()
	if err := c.write(to, from, n); err != nil {
		c.t.Fatal(err)
	}
}

// check reads linearizably at a node: nothing acknowledged is missing, and nothing is
// there that was not sent.
func (c *trio) check(name string) {
	c.t.Helper()
	c.checkRead(name, Wanted{Level: Linearizable, Held: true})
}

func (c *trio) checkRead(name string, w Wanted) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	m := c.nodes[name]
	ctx, _, err := m.node.Sync(ctx, w)
	if err != nil {
		c.t.Fatalf("%s: %v", name, err)
	}
	sel, err := model.Select(ctx, m.node.Reader(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64})
	if err != nil {
		c.t.Fatal(err)
	}
	defer sel.Close()
	got := map[string]map[int64]uint64{}
	for _, s := range sel.Series {
		var cols model.Columns
		if err := s.Read(&cols); err != nil {
			c.t.Fatal(err)
		}
		x := map[int64]uint64{}
		for i, t := range cols.T {
			x[t] = math.Float64bits(cols.V[i])
		}
		got[s.Labels().String()] = x
	}
	for key, want := range c.acked {
		for at, v := range want {
			if x, ok := got[key][at]; !ok || x != v {
				c.t.Fatalf("%s: %s at %d: %x, want %x (there: %v); %d of %d samples", name, key, at, x, v, ok, len(got[key]), len(want))
			}
		}
	}
	for key, samples := range got {
		for at, v := range samples {
			if x, ok := c.sent[key][at]; !ok || x != v {
				c.t.Fatalf("%s: %s at %d: %x was never sent", name, key, at, v)
			}
		}
	}
}

func (c *trio) checkAll() {
	c.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
		c.check(name)
	}
}

// flush flushes a node, when it has what was acknowledged before; one that is cut off
// flushes what it has.
func (c *trio) flush(name string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	_, _, _ = c.nodes[name].node.Sync(ctx, Wanted{Level: Linearizable, Held: true})
	cancel()
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := c.nodes[name].db.Flush(context.Background())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: %v", name, err)
		}
	}
}

// TestAnyNode: every node takes writes and shows them all.
func TestAnyNode(t *testing.T) {
	c := newTrio(t, Options{})
	for i, name := range []string{"n1", "n2", "n3", "n1"} {
		c.mustWrite(name, int64(i)*10, 10)
	}
	c.checkAll()
	for name := range c.peers {
		c.flush(name)
	}
	c.mustWrite("n2", 100, 5)
	c.checkAll()
}

// TestRestarts stops and starts nodes one after another, then all at once.
func TestRestarts(t *testing.T) {
	c := newTrio(t, Options{})
	at := int64(0)
	for _, name := range []string{"n1", "n2", "n3"} {
		c.mustWrite(name, at, 20)
		c.stop(name)
		at += 20
		for other := range c.nodes {
			c.mustWrite(other, at, 20)
			at += 20
		}
		c.start(name)
		c.check(name)
	}
	for name := range c.peers {
		c.stop(name)
	}
	c.startAll()
	c.checkAll()
}

// TestCloseUnderWrites: a node that is closed in the middle of writes ends, and what it
// acknowledged is there.
func TestCloseUnderWrites(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 2 * time.Second})
	for round := range int64(5) {
		for _, name := range []string{"n1", "n2", "n3"} {
			var wg sync.WaitGroup
			for w := range int64(4) {
				wg.Go(func() {
					for i := range int64(20) {
						if c.write(name, round*10000+w*100+i, 1) != nil {
							return
						}
					}
				})
			}
			time.Sleep(5 * time.Millisecond)
			m := c.nodes[name]
			if err := m.db.Close(); err != nil {
				t.Error(err)
			}
			wg.Wait()
			c.stop(name)
			c.start(name)
		}
	}
	c.checkAll()
}

// TestIsolated: the two nodes that see each other go on, the third refuses writes,
// and comes to the same state when it is back.
func TestIsolated(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 30 * time.Second}) // what is alone knows it sooner
	at := int64(0)
	for _, name := range []string{"n1", "n2", "n3"} {
		c.mustWrite("n1", at, 10)
		c.net.isolate(c.peers[name], true)
		if err := c.nodes[name].db.Flush(context.Background()); err != nil {
			t.Logf("flush while alone: %v", err)
		}
		if err := c.write(name, at+1000, 1); !errors.Is(err, errCutOff) {
			t.Fatalf("%s answers alone: %v", name, err)
		}
		if _, _, err := c.nodes[name].node.Sync(context.Background(), Wanted{Level: Linearizable}); !errors.Is(err, model.ErrUnavailable) || !strings.Contains(err.Error(), errCutOff.Error()) {
			t.Fatalf("%s answers a read alone: %v", name, err)
		}
		for other := range c.peers {
			if other != name {
				c.mustWrite(other, at+10, 10)
				break
			}
		}
		c.net.isolate(c.peers[name], false)
		at += 20
		c.await("a write at a node that is back", func() error { return c.write(name, at, 10) })
		at += 10
		c.checkAll()
	}
}

// TestPairApart: two nodes without a link between them, which the third has to both, take
// writes for each other's shards by way of it, and read there what they don't hear of. A
// node without shards reads at those that hear what they must.
func TestPairApart(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 30 * time.Second})
	c.mustWrite("n1", 0, 10)
	c.join("n4", "n1")
	at := int64(10)
	for _, pair := range [][2]string{{"n1", "n2"}, {"n2", "n3"}, {"n3", "n1"}} {
		c.net.part(c.peers[pair[0]], c.peers[pair[1]], true)
		for name := range c.peers {
			c.mustWrite(name, at, 10)
			at += 10
		}
		for name := range c.peers {
			c.checkRead(name, Wanted{Level: Linearizable})
		}
		c.net.part(c.peers[pair[0]], c.peers[pair[1]], false)
	}
	c.checkAll()
}

// TestHungDisk: a leader whose disk hangs loses its groups to the others, and comes
// back when the disk does.
func TestHungDisk(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 10 * time.Second})
	c.mustWrite("n1", 0, 10)
	hang := make(chan struct{})
	c.nodes["n2"].hang.Store(&hang)
	release := sync.OnceFunc(func() { c.nodes["n2"].hang.Store(nil); close(hang) })
	t.Cleanup(release) // before the nodes are closed, whatever happens
	c.mustWrite("n1", 10, 10)
	c.mustWrite("n3", 20, 10)
	release()
	c.mustWrite("n2", 30, 10)
	c.checkAll()
}

// TestLostFolder: a node whose folder is gone becomes a member again by itself, under
// another id, and then serves as well as any.
func TestLostFolder(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 1})
	c.mustWrite("n1", 0, 50)
	c.flush("n1")
	c.flush("n2")
	c.mustWrite("n2", 50, 10)
	c.stop("n3")
	if err := os.RemoveAll(filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	c.mustWrite("n1", 60, 10)
	c.start("n3")
	for deadline := time.Now().Add(30 * time.Second); !c.nodes["n3"].node.whole(); {
		if time.Now().After(deadline) {
			t.Fatal("n3 has not become a member again")
		}
		c.mustWrite("n3", 70, 10)
	}
	c.checkAll()
	c.stop("n1") // now n3 must count
	c.mustWrite("n2", 80, 10)
	c.checkAll()
	c.stop("n3")
	c.start("n1")
	c.start("n3")
	c.mustWrite("n3", 90, 10)
	c.checkAll()
}

// TestInstall: a node that was away longer than the log goes back gets the blocks.
func TestInstall(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 1})
	c.mustWrite("n1", 0, 10)
	c.stop("n3")
	for i := range int64(5) {
		c.mustWrite("n1", 100+i*50, 50)
		c.flush("n1")
		c.flush("n2")
	}
	c.mustWrite("n2", 1000, 10)
	c.start("n3")
	c.checkAll()
	installed := 0
	for i := range c.nodes["n3"].node.replicas.Len() {
		if c.nodes["n3"].node.replicas.Shard(i).Manifest().Installed {
			installed++
		}
	}
	if installed == 0 {
		t.Fatal("no shard was installed: the log went back far enough")
	}
	c.mustWrite("n3", 2000, 10)
	c.flush("n3")
	c.stop("n3")
	c.start("n3")
	c.checkAll()
}

// TestAppendAfterInstall: a replica that has stored what follows an installed state takes
// that from the leader once more, which knows nothing of it if the replica went down then.
func TestAppendAfterInstall(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 1})
	c.mustWrite("n1", 0, 10)
	c.stop("n3")
	for i := range int64(5) {
		c.mustWrite("n1", 100+i*50, 50)
		c.flush("n1")
		c.flush("n2")
	}
	c.start("n3")
	c.mustWrite("n3", 1000, 10)
	c.checkAll()
	tried := false
	for _, g := range c.nodes["n3"].node.ordered() {
		at, _ := g.machine.mark()
		base, last := g.store.log.Base(g.store.id), g.store.log.Last(g.store.id)
		if g.leads() || at.Applied != base || base == 0 || last == base {
			continue
		}
		tried = true
		id, _ := g.raft.LeaderWithID()
		req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte(id)},
			Term: g.raft.CurrentTerm(), PrevLogEntry: base, PrevLogTerm: at.Term, LeaderCommitIndex: base}
		for i := base + 1; i <= last; i++ {
			var l raft.Log
			if err := g.store.GetLog(i, &l); err != nil {
				t.Fatal(err)
			}
			req.Entries = append(req.Entries, &l)
		}
		answered := make(chan error, 1)
		g.trans.receive(&message{kind: kindAppend, group: g.id, data: putAppend(forMember(g.node.raftID), req)}, func(b []byte, err error) {
			var resp raft.AppendEntriesResponse
			d := &decoder{b: b}
			if d.appendResponse(&resp); err == nil && !resp.Success {
				err = fmt.Errorf("refused: %+v", resp)
			}
			answered <- err
		})
		if err := <-answered; err != nil {
			t.Errorf("%s, entries %d to %d: %v", g.name(), base+1, last, err)
		}
	}
	if !tried {
		t.Fatal("no shard was installed and went on")
	}
	c.checkAll()
}
