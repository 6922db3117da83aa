package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"

	"github.com/strandline-db/strandline/wal/vfs"
)

// An Offer is what another replica of the shard needs to become equal to this one at
// the manifest's index: the manifest and the series table, as bytes, and the blocks,
// which it reads with ReadBlock. They stay readable until Release.
type Offer struct {
	Manifest Manifest
	Data     []byte // for Install
	s        *Shard
	v        *view
}

// offers are those not yet released.
type offers struct {
	mu struct {
		sync.Mutex
		open []*Offer
	}
}

// Offer makes an offer of the shard's durable state. It fails with ErrDamaged if a block is
// known to be.
func (s *Shard) Offer(ctx context.Context) (*Offer, error) {
	if len(s.quarantined()) > 0 {
		return nil, fmt.Errorf("shard %d: %w", s.opts.ID, ErrDamaged)
	}
	return s.OfferSound(ctx)
}

// OfferSound is Offer for Repair, which needs some of the blocks alone. The offer names all, so
// that nothing is taken for empty, and those that are damaged can't be read.
func (s *Shard) OfferSound(ctx context.Context) (*Offer, error) {
	if err := s.maintain.take(ctx); err != nil {
		return nil, err
	}
	defer s.maintain.give()
	o := &Offer{Manifest: *s.manifest, s: s}
	m, err := encodeManifest(s.manifest)
	if err != nil {
		return nil, err
	}
	o.Data = append(binary.AppendUvarint(nil, uint64(len(m))), m...)
	if t := s.manifest.Table; t != nil {
		table, err := vfs.ReadFile(s.opts.FS, path.Join(s.opts.Dir, t.Name))
		if err != nil {
			return nil, err
		}
		o.Data = append(o.Data, table...)
	}
	o.v = s.live.acquire()
	s.offers.mu.Lock()
	defer s.offers.mu.Unlock()
	s.offers.mu.open = append(s.offers.mu.open, o)
	return o, nil
}

// Release lets the offer's blocks go.
func (o *Offer) Release() error {
	o.s.offers.mu.Lock()
	o.s.offers.mu.open = slices.DeleteFunc(o.s.offers.mu.open, func(x *Offer) bool { return x == o })
	o.s.offers.mu.Unlock()
	return o.v.release()
}

// ReadBlock appends to dst up to n bytes at off of the file of a block that an open offer names.
// Without such an offer it fails with fs.ErrNotExist, and with ErrDamaged if the block is in
// quarantine.
func (s *Shard) ReadBlock(dst []byte, name string, off int64, n int) (_ []byte, err error) {
	v, held := s.offered(name)
	if held == nil {
		return nil, fmt.Errorf("block %s: %w", name, fs.ErrNotExist)
	}
	defer func() { err = errors.Join(err, v.release()) }()
	if held.bad.Load() != nil {
		return nil, fmt.Errorf("block %s: %w", name, ErrDamaged)
	}
	f, err := s.opts.FS.Open(held.path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if off < 0 || off > size {
		return nil, fmt.Errorf("block %s: offset %d is outside of %d bytes", name, off, size)
	}
	had, n := len(dst), int(min(int64(n), size-off))
	dst = slices.Grow(dst, n)[:had+n]
	_, err = f.ReadAt(dst[had:], off)
	return dst, err
}

// offered finds a block of an open offer and holds its view.
func (s *Shard) offered(name string) (*view, *liveBlock) {
	s.offers.mu.Lock()
	defer s.offers.mu.Unlock()
	for _, o := range s.offers.mu.open {
		for _, b := range o.v.blocks {
			if b.ref.Name == name {
				o.v.refs.Add(1)
				return o.v, b
			}
		}
	}
	return nil, nil
}

// Install makes this replica equal to another's offer, whose blocks it fetches. The
// new state is durable and visible at once, or an error leaves the old one. The
// caller resets the log to m.Applied afterwards; Open does so if a crash comes first.
func (s *Shard) Install(ctx context.Context, data []byte, m Mark, fetch Fetch) error {
	if err := s.maintain.take(ctx); err != nil {
		return err
	}
	defer s.maintain.give()
	if s.failed != nil {
		return s.failed
	}
	from, rawTable, table, err := decodeOffer(data)
	if err != nil {
		return err
	}
	if from.Shard != s.opts.ID {
		return fmt.Errorf("%w: shard %d was offered to shard %d", ErrManifest, from.Shard, s.opts.ID)
	}
	if m.Applied < s.manifest.Applied {
		return fmt.Errorf("%w: entry %d was offered, %d is here", ErrManifest, m.Applied, s.manifest.Applied)
	}
	added, err := s.fetchBlocks(ctx, from.Blocks, fetch)
	if err != nil {
		return err // what was fetched is there for the next attempt
	}
	if from.Table != nil {
		if err := vfs.WriteFile(s.opts.FS, path.Join(s.opts.Dir, from.Table.Name), rawTable); err != nil {
			return err
		}
	}
	next := *from
	next.Applied, next.Term, next.Configuration, next.ConfigurationIndex = m.Applied, m.Term, m.Configuration, m.ConfigurationIndex
	next.Installed = true
	removed := map[string]bool{}
	for _, b := range s.manifest.Blocks {
		removed[b.Name] = true
	}
	s.fail("install-before-manifest")
	var wake []Sink
	if err := s.commit(&next, added, removed, func() { s.head.setLocked(&next, table); wake = s.head.showLocked() }); err != nil {
		s.failed = fmt.Errorf("shard %d: install: %w", s.opts.ID, err)
		return s.failed
	}
	wakeAll(wake)
	s.fail("install-after-manifest")
	return s.dropFetched()
}

func decodeOffer(data []byte) (m *Manifest, raw []byte, table []tableEntry, err error) {
	n, k := binary.Uvarint(data)
	if k <= 0 || n > uint64(len(data)-k) {
		return nil, nil, nil, fmt.Errorf("%w: an offer that is cut short", ErrManifest)
	}
	if m, err = decodeManifest("offer", data[k:k+int(n)]); err != nil {
		return nil, nil, nil, err
	}
	raw = data[k+int(n):]
	if m.Table != nil {
		if err := m.Table.check(raw); err != nil {
			return nil, nil, nil, err
		}
		err = decodeTable(raw, func(no uint32, key string) { table = append(table, tableEntry{no, key}) })
	}
	return m, raw, table, err
}
