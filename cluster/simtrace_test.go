package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal/vfs"
)

// traceEvent is one line of a trace: what happened at one node of a simulation.
type traceEvent struct {
	At    time.Duration `json:"at"` // since the start, on virtual time
	Node  string        `json:"node,omitempty"`
	Kind  string        `json:"kind"`
	Op    uint64        `json:"op,omitempty"` // connects what began with its end
	Group uint64        `json:"group"`
	Index uint64        `json:"index,omitempty"`
	Last  uint64        `json:"last,omitempty"`
	Text  string        `json:"text,omitempty"` // for people; an error in an event of kind "done"
	Data  []byte        `json:"data,omitempty"`
	Logs  []*raft.Log   `json:"logs,omitempty"`
	Mark  *engine.Mark  `json:"mark,omitempty"`
	Files [][]byte      `json:"files,omitempty"`
	State []traceState  `json:"state,omitempty"`
}

// traceState is how far a node's replica of a group is on disk.
type traceState struct {
	Base, Last, Applied uint64
}

// trace is the events of a run, in order.
type trace struct {
	began time.Time
	op    atomic.Uint64
	mu    struct {
		sync.Mutex
		events []traceEvent
	}
}

func (x *trace) add(e traceEvent) {
	e.At = time.Since(x.began)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.events = append(x.mu.events, e)
}

func (x *trace) list() []traceEvent {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.events
}

// delivered notes the messages of a frame.
func (x *trace) delivered(from, to string, frame []byte) {
	if len(frame) < frameHeader || string(frame[:4]) == preface[:4] {
		return
	}
	text := "from " + from + ":"
	_ = eachMessage(frame[frameHeader:], false, func(m *message) { // the receiver says if it can't be read
		text += fmt.Sprintf(" %d/%d/%d(%d)", m.kind, m.group, m.id, len(m.data))
	})
	x.add(traceEvent{Node: to, Kind: "message", Text: text})
}

// save writes the trace to a file and says how to run it again.
func (x *trace) save(t *testing.T) {
	f, err := os.CreateTemp("", "strandline-sim-*.trace")
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, e := range x.list() {
		if err := enc.Encode(&e); err != nil {
			t.Error(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	t.Logf("the trace: go test -tags invariants -run TestReplay ./cluster -args -trace %s", f.Name())
}

func readTrace(name string) ([]traceEvent, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []traceEvent
	for d := json.NewDecoder(bufio.NewReader(f)); d.More(); {
		var e traceEvent
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("event %d: %w", len(out), err)
		}
		out = append(out, e)
	}
	return out, nil
}

// runTap notes what one run of a node does; what a crash has ended writes nothing more.
type runTap struct {
	x    *trace
	node string
	run  *simRun
	fs   *vfs.MemFS
}

func (p *runTap) add(e traceEvent) {
	if p.run.ghost.Load() {
		return
	}
	e.Node = p.node
	p.x.add(e)
}

// begin notes the start of an operation, and with what is returned its end.
func (p *runTap) begin(e traceEvent) (done func(error)) {
	e.Op = p.x.op.Add(1)
	p.add(e)
	return func(err error) {
		d := traceEvent{Kind: "done", Op: e.Op, Group: e.Group}
		if err != nil {
			d.Text = err.Error()
		}
		p.add(d)
	}
}

func (p *runTap) stored(group uint64, logs []*raft.Log) func(error) {
	return p.begin(traceEvent{Kind: "store", Group: group, Index: logs[0].Index, Last: logs[len(logs)-1].Index, Logs: logs})
}

func (p *runTap) deleted(group, first, last uint64) func(error) {
	return p.begin(traceEvent{Kind: "delete", Group: group, Index: first, Last: last})
}

func (p *runTap) machine(group uint64, m machine) machine { return &tappedMachine{m, p, group} }

type tappedMachine struct {
	machine
	p     *runTap
	group uint64
}

func (m *tappedMachine) apply(index uint64, data []byte) (any, error) {
	m.p.add(traceEvent{Kind: "apply", Group: m.group, Index: index, Data: data})
	return m.machine.apply(index, data)
}

func (m *tappedMachine) freeze() cut {
	op := m.p.x.op.Add(1)
	m.p.add(traceEvent{Kind: "freeze", Group: m.group, Op: op})
	return &tappedCut{m.machine.freeze(), m, op, false}
}

func (m *tappedMachine) restore(ctx context.Context, at engine.Mark, data []byte) error {
	err := m.machine.restore(ctx, at, data)
	if err != nil {
		return err
	}
	e := traceEvent{Kind: "restore", Group: m.group, Index: at.Applied, Mark: &at, Data: data}
	if s, ok := m.machine.(*shardMachine); ok {
		if e.Files, err = m.p.blocks(s.id, s.r); err != nil {
			return err
		}
	}
	m.p.add(e)
	return nil
}

// blocks reads the files of a shard's blocks.
func (p *runTap) blocks(shard uint64, r *engine.Replica) (files [][]byte, err error) {
	for _, b := range r.Manifest().Blocks {
		content, err := vfs.ReadFile(p.fs, path.Join("data", "shards", fmt.Sprintf("%03d", shard), b.Name))
		if err != nil {
			return nil, err
		}
		files = append(files, content)
	}
	return files, nil
}

// found notes an installed shard that a node starts with: of an install that a crash has
// cut short there is no other event.
func (p *runTap) found(i int, r *engine.Replica) error {
	o, err := r.Offer(context.Background())
	if err != nil {
		return err
	}
	defer func() { _ = o.Release() }() // nothing else holds the blocks of a shard that starts
	files, err := p.blocks(uint64(i), r)
	m := r.Manifest()
	p.add(traceEvent{Kind: "found", Group: uint64(i), Index: m.Applied, Data: append(putBytes(nil, ""), o.Data...), Files: files,
		Mark: &engine.Mark{Applied: m.Applied, Term: m.Term, Configuration: m.Configuration, ConfigurationIndex: m.ConfigurationIndex}})
	return err
}

type tappedCut struct {
	cut
	m    *tappedMachine
	op   uint64
	done bool
}

func (c *tappedCut) persist(at engine.Mark) error {
	c.done = true
	c.m.p.add(traceEvent{Kind: "persist", Group: c.m.group, Op: c.op, Index: at.Applied, Mark: &at})
	err := c.cut.persist(at)
	d := traceEvent{Kind: "done", Op: c.op, Group: c.m.group}
	if err != nil {
		d.Text = err.Error()
	}
	c.m.p.add(d)
	return err
}

func (c *tappedCut) release() {
	if !c.done {
		c.m.p.add(traceEvent{Kind: "unfreeze", Group: c.m.group, Op: c.op})
	}
	c.cut.release()
}
