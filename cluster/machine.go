package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// shardMachine is one shard's replica as the machine of its group.
type shardMachine struct {
	node *Node
	id   uint64
	r    *engine.Replica
}

func (m *shardMachine) apply(index uint64, data []byte) (any, error) { return m.r.Apply(index, data) }

func (m *shardMachine) freeze() cut { return &shardCut{m: m, c: m.r.Freeze()} }

// shardCut is a frozen generation of the head.
type shardCut struct {
	m    *shardMachine
	c    *engine.Cut
	done bool
}

func (c *shardCut) persist(at engine.Mark) error {
	c.done = true
	return c.m.r.Persist(c.m.node.ctx, c.c, at)
}

func (c *shardCut) release() {
	if !c.done {
		c.m.r.Unfreeze(c.c)
	}
}

func (m *shardMachine) mark() (engine.Mark, bool) {
	x := m.r.Manifest()
	return engine.Mark{Applied: x.Applied, Term: x.Term, Configuration: x.Configuration, ConfigurationIndex: x.ConfigurationIndex}, len(x.Configuration) > 0
}

// offer's data: the node to fetch blocks from, behind its length, and the engine's offer.
func (m *shardMachine) offer() ([]byte, engine.Mark, func(), error) {
	o, err := m.r.Offer(m.node.ctx)
	if err != nil {
		return nil, engine.Mark{}, nil, err
	}
	x := &o.Manifest
	release := func() {
		if err := o.Release(); err != nil {
			m.node.opts.Logger.Error("cluster: closing an offered block", "err", err)
		}
	}
	at := engine.Mark{Applied: x.Applied, Term: x.Term, Configuration: x.Configuration, ConfigurationIndex: x.ConfigurationIndex}
	return append(putBytes(nil, m.node.name), o.Data...), at, release, nil
}

func (m *shardMachine) restore(ctx context.Context, at engine.Mark, data []byte) error {
	d := &decoder{b: data}
	from := string(d.bytes())
	if d.bad {
		return errMessage
	}
	m.node.opts.Logger.Info("cluster: installing a shard from another node", "shard", m.id, "from", from, "index", at.Applied)
	err := m.r.Install(ctx, d.b, at, m.node.fetcher(m.id, from))
	if errors.Is(err, model.ErrFailed) {
		m.node.fail(err)
	}
	return err
}

func (m *shardMachine) fetch(dst, req []byte) ([]byte, error) {
	d := &decoder{b: req}
	name, off, n := string(d.bytes()), d.uvarint(), d.uvarint()
	if err := d.end(); err != nil {
		return nil, err
	}
	return m.r.ReadBlock(dst, name, int64(off), int(min(n, maxFetch)))
}

// metaMachine replicates the metadata of metrics and the records. Its state lies in
// the engine and is durable before apply returns, so that a cut is only its place.
type metaMachine struct {
	node *Node
	r    *engine.Replicas
}

const metaMarkName = "CLUSTER-META"

// apply's entry holds proposals one behind another, each in JSON: a list of metadata,
// or a model.RecordChange.
func (m *metaMachine) apply(index uint64, data []byte) (any, error) {
	var mds []model.Metadata
	var changes []model.RecordChange
	var of []int // proposal -> its change; -1: a list of metadata
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var raw json.RawMessage
		err := d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && raw[0] == '{' {
			of = append(of, len(changes))
			changes = append(changes, model.RecordChange{})
			err = json.Unmarshal(raw, &changes[len(changes)-1])
		} else if err == nil {
			of = append(of, -1)
			var list []model.Metadata
			err = json.Unmarshal(raw, &list)
			mds = append(mds, list...)
		}
		if err != nil {
			return nil, fmt.Errorf("metadata entry: %w", err)
		}
	}
	return m.store(index, mds, changes, of)
}

func (m *metaMachine) store(index uint64, mds []model.Metadata, changes []model.RecordChange, of []int) (any, error) {
	if err := m.r.StoreMetadata(mds); err != nil {
		return nil, fmt.Errorf("metadata entry: %w", err)
	}
	results, err := m.r.ChangeRecords(index, changes)
	if err != nil {
		return nil, fmt.Errorf("metadata entry: %w", err)
	}
	out := make([]engine.Result, len(of))
	for i, k := range of {
		if k >= 0 {
			out[i] = results[k]
		}
	}
	return out, nil
}

func (m *metaMachine) freeze() cut { return (*metaCut)(m) }

type metaCut metaMachine

// metaMark is what metaMarkName holds: a cut, and a revision that its state has come to.
type metaMark struct {
	engine.Mark
	Revision uint64 `json:"revision,omitempty"` // 0: of an earlier version
}

func (c *metaCut) persist(at engine.Mark) error {
	c.node.metaMarking.Lock()
	defer c.node.metaMarking.Unlock()
	if last, ok := (*metaMachine)(c).mark(); ok && at.Applied < last.Applied {
		return engine.ErrSuperseded
	}
	b, err := json.Marshal(&metaMark{at, c.r.Revision()})
	if err != nil {
		return err
	}
	return vfs.WriteFile(c.node.opts.FS, path.Join(c.node.opts.Dir, metaMarkName), b)
}

func (*metaCut) release() {}

// mark returns the last cut; none if the state that it covers is lost, see dropLost.
func (m *metaMachine) mark() (_ engine.Mark, ok bool) {
	var at metaMark
	b, err := vfs.ReadFile(m.node.opts.FS, path.Join(m.node.opts.Dir, metaMarkName))
	if errors.Is(err, fs.ErrNotExist) {
		return engine.Mark{}, false
	}
	if err == nil {
		err = json.Unmarshal(b, &at)
	}
	if err != nil {
		m.node.fail(fmt.Errorf("%s: %w", metaMarkName, err))
		return engine.Mark{}, false
	}
	if m.r.Revision() < at.Revision {
		return engine.Mark{}, false
	}
	return at.Mark, true
}

func (m *metaMachine) offer() ([]byte, engine.Mark, func(), error) {
	at, ok := m.mark()
	if !ok {
		return nil, at, nil, fs.ErrNotExist
	}
	image := m.r.MetaImage()
	b, err := json.Marshal(&image)
	return b, at, func() {}, err
}

func (m *metaMachine) restore(_ context.Context, at engine.Mark, data []byte) error {
	var image engine.MetaImage
	if err := json.Unmarshal(data, &image); err != nil {
		return fmt.Errorf("metadata of another node: %w", err)
	}
	if err := m.r.InstallMeta(&image); err != nil {
		return err
	}
	if err := (*metaCut)(m).persist(at); err != nil {
		return err
	}
	return m.r.Log().Reset(metaStream, at.Applied)
}

func (*metaMachine) fetch(_, _ []byte) ([]byte, error) { return nil, errMessage }
