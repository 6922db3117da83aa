package block

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/index"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// Reader reads one block. It keeps the table of contents in memory, and the pages
// that it read last.
type Reader struct {
	f           vfs.File
	path        string
	meta        Meta
	dec         *zstd.Decoder
	chunkPages  []place
	seriesPages []place
	names       []string // sorted
	postings    []place

	chunkCache, seriesCache pageCache
}

// pageCache remembers a few unpacked pages.
type pageCache struct {
	mu    sync.Mutex
	pages [4]cachedPage
	next  int
}

type cachedPage struct {
	n int // page number + 1
	b []byte
}

func (c *pageCache) get(n int, load func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	for _, p := range c.pages {
		if p.n == n+1 {
			c.mu.Unlock()
			return p.b, nil
		}
	}
	c.mu.Unlock()
	b, err := load() // I/O without the lock: two readers may load the same page
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages[c.next] = cachedPage{n: n + 1, b: b}
	c.next = (c.next + 1) % len(c.pages)
	return b, nil
}

// Open opens a block and reads its table of contents.
func Open(fsys vfs.FS, path string) (_ *Reader, err error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Reader{f: f, path: path}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxSection), zstd.WithDecoderLowmem(true)); err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	toc, err := r.findTOC(size)
	if err != nil {
		return nil, err
	}
	b, err := readSection(f, path, toc, r.dec)
	if err != nil {
		return nil, err
	}
	if err := r.parseTOC(b); err != nil {
		return nil, r.corrupt(toc.off, err)
	}
	r.meta.Bytes = size
	return r, nil
}

func (r *Reader) corrupt(off int64, err error) error {
	return &model.CorruptionError{Path: r.path, Offset: off, Err: err}
}

// findTOC checks header and footer.
func (r *Reader) findTOC(size int64) (place, error) {
	if size < headerSize+footerSize {
		return place{}, r.corrupt(0, io.ErrUnexpectedEOF)
	}
	var head [headerSize]byte
	var foot [footerSize]byte
	if _, err := r.f.ReadAt(head[:], 0); err != nil {
		return place{}, err
	}
	if _, err := r.f.ReadAt(foot[:], size-footerSize); err != nil && !errors.Is(err, io.EOF) {
		return place{}, err
	}
	switch {
	case string(head[:4]) != magic:
		return place{}, r.corrupt(0, errMagic)
	case binary.LittleEndian.Uint32(head[4:]) != version:
		return place{}, r.corrupt(4, errVersion)
	case binary.LittleEndian.Uint64(head[8:]) != 0:
		return place{}, r.corrupt(8, errFormat)
	case string(foot[24:]) != magic:
		return place{}, r.corrupt(size-4, errMagic)
	case crc32.Checksum(foot[:20], castagnoli) != binary.LittleEndian.Uint32(foot[20:]):
		return place{}, r.corrupt(size-footerSize, errChecksum)
	case binary.LittleEndian.Uint32(foot[16:]) != version:
		return place{}, r.corrupt(size-12, errVersion)
	}
	off, n := binary.LittleEndian.Uint64(foot[:]), binary.LittleEndian.Uint64(foot[8:])
	if off > uint64(size) || n > maxSection || off+n != uint64(size-footerSize) {
		return place{}, r.corrupt(size-footerSize, errFormat)
	}
	return place{off: int64(off), len: uint32(n)}, nil
}

func (r *Reader) parseTOC(b []byte) error {
	c := cursor{b: b}
	if err := json.Unmarshal(c.take(c.uvarint()), &r.meta); err != nil {
		return err
	}
	for _, pages := range []*[]place{&r.chunkPages, &r.seriesPages} {
		for n := c.count(); n > 0 && !c.bad; n-- {
			*pages = append(*pages, c.place())
		}
	}
	for n := c.count(); n > 0 && !c.bad; n-- {
		r.names = append(r.names, string(c.take(c.uvarint())))
		r.postings = append(r.postings, c.place())
	}
	if c.bad || len(c.b) > 0 || r.meta.Series < 0 || r.meta.Series > len(r.seriesPages)*seriesPerPage {
		return errFormat
	}
	return nil
}

// Meta describes the block.
func (r *Reader) Meta() Meta { return r.meta }

// Close closes the file. Idempotence is the caller's.
func (r *Reader) Close() error {
	if r.dec != nil {
		r.dec.Close()
	}
	return r.f.Close()
}

// Series appends the key of series ord to key and its chunks to metas.
func (r *Reader) Series(ord uint32, key []byte, metas []ChunkMeta) (_ []byte, no uint64, _ []ChunkMeta, err error) {
	n := int(ord) / seriesPerPage
	if n >= len(r.seriesPages) || int(ord) >= r.meta.Series {
		return key, 0, metas, fmt.Errorf("%s: there is no series %d", r.path, ord)
	}
	page, err := r.seriesCache.get(n, func() ([]byte, error) { return readSection(r.f, r.path, r.seriesPages[n], r.dec) })
	if err != nil {
		return key, 0, metas, err
	}
	c, start, had := cursor{b: page}, len(key), len(metas)
	for i := n * seriesPerPage; i <= int(ord); i++ {
		metas = metas[:had]
		key, no, metas = c.series(key, start, metas)
		if c.bad {
			return key, 0, metas, r.corrupt(r.seriesPages[n].off, errFormat)
		}
	}
	return key, no, metas, nil
}

// series decodes one series of a page. key[start:] is the key of the one before.
func (c *cursor) series(key []byte, start int, metas []ChunkMeta) ([]byte, uint64, []ChunkMeta) {
	shared, own := c.uvarint(), c.uvarint()
	if shared > uint64(len(key)-start) {
		c.bad = true
		return key, 0, metas
	}
	key = append(key[:start+int(shared)], c.take(own)...)
	no := c.uvarint()
	var prevT int64
	var prevPage uint64
	for n := c.count(); n > 0 && !c.bad; n-- {
		var m ChunkMeta
		if k := c.take(1); len(k) == 1 {
			m.Kind = chunk.Kind(k[0])
		}
		m.MinT = prevT + c.varint()
		m.MaxT = m.MinT + int64(c.uvarint())
		count := c.uvarint()
		prevPage += c.uvarint()
		off, size := c.uvarint(), c.uvarint()
		if m.MaxT < m.MinT || count == 0 || count > math.MaxInt32 || prevPage > math.MaxUint32 || off > maxSection || size > maxSection {
			c.bad = true
			break
		}
		m.Count, m.page, m.off, m.len = int(count), uint32(prevPage), uint32(off), uint32(size)
		if m.Kind == chunk.Floats {
			var err error
			if m.Stats, c.b, err = chunk.ReadStats(c.b); err != nil {
				c.bad = true
			}
		}
		prevT = m.MaxT
		metas = append(metas, m)
	}
	return key, no, metas
}

// Chunk appends the chunk's bytes to buf.
func (r *Reader) Chunk(m *ChunkMeta, buf []byte) ([]byte, error) {
	if int(m.page) >= len(r.chunkPages) {
		return buf, r.corrupt(0, errFormat)
	}
	p := r.chunkPages[m.page]
	page, err := r.chunkCache.get(int(m.page), func() ([]byte, error) { return readSection(r.f, r.path, p, r.dec) })
	if err != nil {
		return buf, err
	}
	if uint64(m.off)+uint64(m.len) > uint64(len(page)) {
		return buf, r.corrupt(p.off, errFormat)
	}
	return append(buf, page[m.off:m.off+m.len]...), nil
}

// Select returns the ordinals of the matching series, ascending.
func (r *Reader) Select(ctx context.Context, ms []*labels.Matcher) ([]uint32, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return index.Select(r, ms)
}

// HasName tells whether a series has a label of the name.
func (r *Reader) HasName(name string) bool {
	_, ok := slices.BinarySearch(r.names, name)
	return ok
}

// Names implements index.Source.
func (r *Reader) Names() ([]string, error) { return slices.Clone(r.names), nil }

// All implements index.Source.
func (r *Reader) All() ([]uint32, error) {
	all := make([]uint32, r.meta.Series)
	for i := range all {
		all[i] = uint32(i)
	}
	return all, nil
}

// Postings implements index.Source.
func (r *Reader) Postings(name, value string) (out []uint32, err error) {
	err = r.eachValue(name, func(v string, ids func() ([]uint32, error)) (bool, error) {
		if v == value {
			out, err = ids()
		}
		return v < value, err
	})
	return out, err
}

// Has implements index.Source.
func (r *Reader) Has(name string) ([]uint32, error) {
	var all []uint32
	err := r.Values(name, "", nil, func(_ string, ids []uint32) error {
		all = append(all, ids...)
		return nil
	})
	slices.Sort(all)
	return all, err
}

// Values implements index.Source; the values ascend.
func (r *Reader) Values(name, prefix string, keep func(string) bool, emit func(string, []uint32) error) error {
	return r.eachValue(name, func(v string, ids func() ([]uint32, error)) (bool, error) {
		if !strings.HasPrefix(v, prefix) || keep != nil && !keep(v) {
			return true, nil
		}
		list, err := ids()
		if err != nil {
			return false, err
		}
		return true, emit(v, list)
	})
}

// ValueNames implements index.Source.
func (r *Reader) ValueNames(name string, fn func(string)) error {
	return r.eachValue(name, func(v string, _ func() ([]uint32, error)) (bool, error) {
		fn(v)
		return true, nil
	})
}

// eachValue calls fn with the values of a label, ascending, until it returns false.
// The ordinals are decoded only when they are asked for.
func (r *Reader) eachValue(name string, fn func(v string, ids func() ([]uint32, error)) (bool, error)) error {
	i, ok := slices.BinarySearch(r.names, name)
	if !ok {
		return nil
	}
	b, err := readSection(r.f, r.path, r.postings[i], r.dec)
	if err != nil {
		return err
	}
	bad := func() error { return r.corrupt(r.postings[i].off, errFormat) }
	c := cursor{b: b}
	for n := c.count(); n > 0; n-- {
		v := string(c.take(c.uvarint()))
		list := c
		ids := func() ([]uint32, error) {
			if ids := list.ids(r.meta.Series); !list.bad {
				return ids, nil
			}
			return nil, bad()
		}
		if c.skipIDs(); c.bad {
			return bad()
		}
		if more, err := fn(v, ids); err != nil || !more {
			return err
		}
	}
	return nil
}

func (c *cursor) ids(series int) []uint32 {
	n := c.count()
	ids := make([]uint32, 0, n)
	var at uint64
	for i := range n {
		d := c.uvarint()
		if at += d; d >= uint64(series) || at >= uint64(series) || (i > 0 && d == 0) {
			c.bad = true
			return nil
		}
		ids = append(ids, uint32(at))
	}
	return ids
}

func (c *cursor) skipIDs() {
	for n := c.count(); n > 0 && !c.bad; n-- {
		c.uvarint()
	}
}
