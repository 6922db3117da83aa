package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/clock"
	"github.com/strandline-db/strandline/wal/vfs"
)

var traceFile = flag.String("trace", "", "a trace of TestSimulation for TestReplay")

// replay does what a trace says to the logs and state machines of its nodes, without Raft
// and without a network; of a node whose log is damaged, until then: how much goes with a
// batch depends on how entries shared batches.
type replay struct {
	nodes map[string]*replayNode
	done  map[string]int // events, by kind
}

type replayNode struct {
	disk    *vfs.MemFS
	db      *engine.DB // nil before the first start
	rs      *engine.Replicas
	pending map[uint64]*traceEvent // begun, with no end yet
	cuts    map[uint64]*engine.Cut
	found   map[uint64]*traceEvent // by group: what an install that was cut short had left
	damaged bool                   // what its log has is not known from here on
	meta    uint64                 // the last cut of the metadata that was begun, all of it committed
}

// noCommitter stands where the node would. Nothing is asked of it but to end.
type noCommitter struct{ engine.Committer }

func (noCommitter) Close() error { return nil }

func (n *replayNode) open() (err error) {
	n.db, err = engine.Open("data", &engine.Options{
		Shards: simShards, Retention: -1, MinFreeBytes: -1, SegmentBytes: simSegment, FS: n.disk, Clock: clock.NewManual(time.Now()),
		Replicate: func(rs *engine.Replicas) (engine.Committer, error) { n.rs = rs; return noCommitter{}, nil },
	})
	return err
}

// run does all events; the error names the one at which what happens differs.
func (r *replay) run(events []traceEvent) error {
	r.nodes, r.done = map[string]*replayNode{}, map[string]int{}
	defer func() {
		for _, n := range r.nodes {
			if n.db != nil {
				_ = n.db.Close()
			}
		}
	}()
	for i := range events {
		e := &events[i]
		if e.Node == "" {
			continue
		}
		n := r.nodes[e.Node]
		if n == nil {
			n = &replayNode{disk: vfs.NewMem()}
			r.nodes[e.Node] = n
		}
		if n.damaged = n.damaged || e.Kind == "damaged"; n.damaged {
			continue
		}
		r.done[e.Kind]++
		if err := n.do(e); err != nil {
			return fmt.Errorf("event %d, %v, %s %s of group %d: %w", i, e.At, e.Node, e.Kind, e.Group, err)
		}
	}
	return nil
}

func (n *replayNode) do(e *traceEvent) error {
	switch e.Kind {
	case "found":
		if n.found == nil {
			n.found = map[uint64]*traceEvent{}
		}
		n.found[e.Group] = e
	case "start":
		return n.start(e)
	case "lost":
		n.disk, n.pending = vfs.NewMem(), nil
		return n.reopen()
	case "store", "delete", "persist":
		if n.pending[e.Op] = e; e.Kind == "persist" && e.Group == uint64(metaStream) {
			n.meta = e.Mark.Applied
		}
	case "done":
		return n.end(e)
	case "freeze", "unfreeze", "apply", "restore", "hash":
		if e.Group != uint64(metaStream) {
			return n.machine(e)
		}
		if e.Kind == "restore" {
			n.meta = e.Index
			return n.rs.Log().Reset(metaStream, e.Index)
		}
	}
	return nil
}

// machine does what a shard's state machine did.
func (n *replayNode) machine(e *traceEvent) error {
	s := n.rs.Shard(int(e.Group))
	switch e.Kind {
	case "freeze":
		n.cuts[e.Op] = s.Freeze()
	case "unfreeze":
		s.Unfreeze(n.cuts[e.Op])
	case "apply":
		entry, err := n.rs.Log().Get(wal.StreamID(e.Group), e.Index)
		if err == nil && !bytes.Equal(entry.Data, e.Data) {
			return fmt.Errorf("entry %d was applied with other content than the log has", e.Index)
		} else if err != nil && !errors.Is(err, wal.ErrNotFound) {
			return err
		}
		_, err = s.Apply(e.Index, e.Data)
		return err
	case "restore":
		return n.install(e)
	case "hash":
		index, sum, err := s.Hash(context.Background())
		if got := fmt.Sprintf("%016x", sum); err == nil && (index != e.Index || got != e.Text) {
			err = fmt.Errorf("the hash at entry %d is %s; it was %s at %d", index, got, e.Text, e.Index)
		}
		return err
	}
	return nil
}

var blockName = regexp.MustCompile(`[0-9a-f]{16}\.blk`)

func (n *replayNode) install(e *traceEvent) error {
	d := &decoder{b: e.Data}
	d.bytes()                                         // the address to fetch from
	names := blockName.FindAllString(string(d.b), -1) // in the order of the leader's manifest
	return n.rs.Shard(int(e.Group)).Install(context.Background(), d.b, *e.Mark,
		func(_ context.Context, name string, off int64, size int, use func([]byte) error) error {
			i := slices.Index(names, name)
			if i < 0 || i >= len(e.Files) {
				return fmt.Errorf("the trace has no block %s", name)
			}
			return use(e.Files[i][off : off+int64(size)])
		})
}

// end does an operation whose end has come, with the outcome that it had.
func (n *replayNode) end(e *traceEvent) error {
	op := n.pending[e.Op]
	delete(n.pending, e.Op)
	if op == nil || strings.Contains(e.Text, wal.ErrClosed.Error()) || strings.Contains(e.Text, engine.ErrSuperseded.Error()) {
		return nil
	}
	err := n.perform(op)
	if (err == nil) != (e.Text == "") {
		return fmt.Errorf("%s of entry %d gives %v, gave %q", op.Kind, op.Index, err, e.Text)
	}
	if err != nil {
		return fmt.Errorf("%s of entry %d fails as it did: %w", op.Kind, op.Index, err)
	}
	return nil
}

func (n *replayNode) perform(op *traceEvent) error {
	store := &logStore{log: n.rs.Log(), id: wal.StreamID(op.Group), fail: func(error) {}, mark: func() (engine.Mark, bool) {
		if op.Group == uint64(metaStream) {
			return engine.Mark{Applied: n.meta}, true
		}
		return engine.Mark{Applied: n.rs.Shard(int(op.Group)).Manifest().Applied}, true
	}}
	switch op.Kind {
	case "store":
		return store.StoreLogs(op.Logs)
	case "delete":
		return store.DeleteRange(op.Index, op.Last)
	}
	if op.Group == uint64(metaStream) {
		return nil
	}
	err := n.rs.Shard(int(op.Group)).Persist(context.Background(), n.cuts[op.Op], *op.Mark)
	if errors.Is(err, engine.ErrSuperseded) {
		return nil
	}
	return err
}

// start does what was under way when the node ended, as far as its disk had it
// afterwards, cuts the power, and opens what is left: it must be the same.
func (n *replayNode) start(e *traceEvent) error {
	if n.db != nil {
		for _, op := range n.pending {
			if now := e.State[stateOf(op.Group)]; now.has(op) {
				if err := n.perform(op); err != nil {
					return err
				}
			}
		}
		for g, op := range n.found {
			if e.State[g].Applied > n.rs.Shard(int(g)).Manifest().Applied {
				if err := n.install(op); err != nil {
					return err
				}
			}
		}
		n.disk = n.disk.CrashClone(rand.New(rand.NewPCG(1, 1)), 0)
	}
	if err := n.reopen(); err != nil {
		return err
	}
	for i := range e.State {
		id := metaStream
		got := traceState{}
		if i < simShards {
			id = wal.StreamID(i)
			got.Applied = n.rs.Shard(i).Manifest().Applied
		}
		got.Base, got.Last = n.rs.Log().Base(id), n.rs.Log().Last(id)
		if got != e.State[i] {
			return fmt.Errorf("stream %d is found as %+v, was %+v", id, got, e.State[i])
		}
	}
	return nil
}

func (n *replayNode) reopen() error {
	if n.db != nil {
		if err := n.db.Close(); err != nil {
			return err
		}
	}
	n.pending, n.cuts, n.found = map[uint64]*traceEvent{}, map[uint64]*engine.Cut{}, nil
	return n.open()
}

func stateOf(group uint64) int {
	if group == uint64(metaStream) {
		return simShards
	}
	return int(group)
}

// has tells whether the disk shows that an operation was done.
func (s traceState) has(op *traceEvent) bool {
	switch op.Kind {
	case "store":
		return s.Last >= op.Last
	case "delete":
		return s.Base >= op.Last || s.Last < op.Index
	}
	return op.Group != uint64(metaStream) && s.Applied == op.Index
}

// TestReplay replays the trace of a failed simulation, given by -trace: it says where the
// log or a state machine does other than it should. Without one it replays sound runs,
// and runs with an error put in, which it must find.
func TestReplay(t *testing.T) {
	var r replay
	if *traceFile != "" {
		events, err := readTrace(*traceFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.run(events); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d events replayed, nothing differs: %v", len(events), r.done)
		return
	}
	for seed, sound := uint64(500), 0; sound < 4; seed++ {
		var events []traceEvent
		damaged := false
		synctest.Test(t, func(t *testing.T) {
			s := simulate(t, seed)
			damaged = s.counts["damaged tail"] > 0
			text, err := json.Marshal(s.trace.list())
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &events); err != nil {
				t.Fatal(err)
			}
		})
		if damaged {
			if err := r.run(events); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			continue
		}
		sound++
		if err := r.run(events); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if r.done["apply"] < 50 || r.done["hash"] < 3*simShards {
			t.Fatalf("void: %v", r.done)
		}
		i := len(events) - 1 // the last one that a node applied
		for e := &events[i]; e.Kind != "apply" || e.Group == uint64(metaStream) || len(e.Data) < 30; e = &events[i] {
			i--
		}
		if err := r.run(slices.Delete(slices.Clone(events), i, i+1)); err == nil {
			t.Fatal("an entry that was not applied makes no difference")
		}
		events[i].Data[len(events[i].Data)-1] ^= 1
		if err := r.run(events); err == nil {
			t.Fatal("an entry applied with other bits makes no difference")
		}
	}
}
