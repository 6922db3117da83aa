package block

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// Meta describes a block. Times are milliseconds, inclusive.
type Meta struct {
	ID          string `json:"id"`
	Shard       int    `json:"shard"`
	MinT        int64  `json:"minT"`
	MaxT        int64  `json:"maxT"`
	Tier        uint8  `json:"tier"`
	Level       int    `json:"level"`
	Series      int    `json:"series"`
	Chunks      int    `json:"chunks"`
	Samples     int64  `json:"samples"`
	Bytes       int64  `json:"bytes"` // of the file; set by Finish and Open
	FromIndex   uint64 `json:"fromIndex"`
	ToIndex     uint64 `json:"toIndex"`
	Compression int    `json:"compression"`
}

// ChunkMeta says what a chunk holds and where it lies.
type ChunkMeta struct {
	Kind       chunk.Kind
	MinT, MaxT int64
	Count      int
	Stats      chunk.Stats // of Floats only
	page       uint32
	off, len   uint32 // inside the page
}

// WriterOptions configure a Writer.
type WriterOptions struct {
	Meta Meta // what identifies the block; counts, times and bytes are filled in
	// Compression of chunk data: 0 none, else a zstd level from 1 (fast) to 4 (small).
	Compression int
}

// Writer writes one block.
type Writer struct {
	f    vfs.File
	fsys vfs.FS
	path string
	off  int64
	meta Meta

	indexEnc *zstd.Encoder
	chunkEnc *zstd.Encoder // nil: chunks as they are
	buf      []byte

	page       []byte // chunk page being filled
	chunkPages []place

	key, prevKey []byte
	no           uint64
	chunks       []ChunkMeta
	open         bool // a series is begun

	series      []byte // series page being filled
	inPage      int
	pageKey     []byte // key before, in the page
	seriesPages []place
	postings    map[string]map[string][]uint32
	finished    bool
}

// NewWriter begins a block in a new file at path.
func NewWriter(fsys vfs.FS, path string, o WriterOptions) (_ *Writer, err error) {
	w := &Writer{fsys: fsys, path: path, meta: o.Meta, postings: map[string]map[string][]uint32{}}
	w.meta.Compression = o.Compression
	w.meta.MinT, w.meta.MaxT = math.MaxInt64, math.MinInt64
	if w.indexEnc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(128<<10), zstd.WithEncoderCRC(false)); err != nil {
		return nil, err
	}
	if o.Compression > 0 {
		if w.chunkEnc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10),
			zstd.WithEncoderLevel(zstd.EncoderLevel(min(o.Compression, 4))), zstd.WithEncoderCRC(false)); err != nil {
			return nil, err
		}
	}
	if w.f, err = fsys.Create(path); err != nil {
		return nil, err
	}
	head := make([]byte, headerSize)
	copy(head, magic)
	binary.LittleEndian.PutUint32(head[4:], version)
	if err := w.write(head); err != nil {
		return nil, errors.Join(err, w.f.Close())
	}
	return w, nil
}

func (w *Writer) write(b []byte) error {
	_, err := w.f.WriteAt(b, w.off)
	w.off += int64(len(b))
	return err
}

func (w *Writer) section(b []byte, enc *zstd.Encoder) (place, error) {
	w.buf = appendSection(w.buf[:0], b, enc)
	p := place{off: w.off, len: uint32(len(w.buf))}
	return p, w.write(w.buf)
}

// StartSeries begins the next series. Keys are canonical and ascend.
func (w *Writer) StartSeries(key []byte, no uint64) error {
	if err := w.endSeries(); err != nil {
		return err
	}
	if w.meta.Series > 0 && bytes.Compare(key, w.prevKey) <= 0 {
		return fmt.Errorf("%s: series keys must ascend", w.path)
	}
	if err := model.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	w.key, w.no, w.open, w.chunks = append(w.key[:0], key...), no, true, w.chunks[:0]
	return nil
}

// AddChunk adds a chunk to the series begun last: in order of kind, then time.
func (w *Writer) AddChunk(kind chunk.Kind, minT, maxT int64, count int, stats *chunk.Stats, data []byte) error {
	if !w.open || count <= 0 || maxT < minT {
		return fmt.Errorf("%s: a chunk needs a series, samples and a time range", w.path)
	}
	if n := len(w.chunks); n > 0 && (kind < w.chunks[n-1].Kind || kind == w.chunks[n-1].Kind && minT <= w.chunks[n-1].MaxT) {
		return fmt.Errorf("%s: chunks of a series must not overlap", w.path)
	}
	m := ChunkMeta{Kind: kind, MinT: minT, MaxT: maxT, Count: count, page: uint32(len(w.chunkPages)), off: uint32(len(w.page)), len: uint32(len(data))}
	if stats != nil {
		m.Stats = *stats
	}
	w.chunks = append(w.chunks, m)
	w.page = append(w.page, data...)
	w.meta.MinT, w.meta.MaxT = min(w.meta.MinT, minT), max(w.meta.MaxT, maxT)
	w.meta.Chunks++
	w.meta.Samples += int64(count)
	if len(w.page) >= chunkPageSize {
		return w.endChunkPage()
	}
	return nil
}

func (w *Writer) endChunkPage() error {
	if len(w.page) == 0 {
		return nil
	}
	p, err := w.section(w.page, w.chunkEnc)
	w.chunkPages, w.page = append(w.chunkPages, p), w.page[:0]
	return err
}

// endSeries writes the series begun last into the series page and the postings.
func (w *Writer) endSeries() error {
	if !w.open {
		return nil
	}
	w.open = false
	shared := 0
	for shared < len(w.key) && shared < len(w.pageKey) && w.key[shared] == w.pageKey[shared] {
		shared++
	}
	b := binary.AppendUvarint(w.series, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(w.key)-shared))
	b = append(b, w.key[shared:]...)
	b = binary.AppendUvarint(b, w.no)
	b = binary.AppendUvarint(b, uint64(len(w.chunks)))
	var prevT int64
	var prevPage uint32
	for i := range w.chunks {
		m := &w.chunks[i]
		b = append(b, byte(m.Kind))
		b = binary.AppendVarint(b, m.MinT-prevT)
		b = binary.AppendUvarint(b, uint64(m.MaxT-m.MinT))
		b = binary.AppendUvarint(b, uint64(m.Count))
		b = binary.AppendUvarint(b, uint64(m.page-prevPage))
		b = binary.AppendUvarint(b, uint64(m.off))
		b = binary.AppendUvarint(b, uint64(m.len))
		if m.Kind == chunk.Floats {
			b = chunk.AppendStats(b, m.Stats)
		}
		prevT, prevPage = m.MaxT, m.page
	}
	w.series = b
	ord := uint32(w.meta.Series)
	w.meta.Series++
	for rest := w.key; len(rest) > 0; {
		name, value, next, _ := model.NextKeyLabel(rest)
		values := w.postings[string(name)]
		if values == nil {
			values = map[string][]uint32{}
			w.postings[string(name)] = values
		}
		values[string(value)] = append(values[string(value)], ord)
		rest = next
	}
	w.prevKey = append(w.prevKey[:0], w.key...)
	w.pageKey = append(w.pageKey[:0], w.key...)
	if w.inPage++; w.inPage == seriesPerPage {
		return w.endSeriesPage()
	}
	return nil
}

func (w *Writer) endSeriesPage() error {
	if w.inPage == 0 {
		return nil
	}
	p, err := w.section(w.series, w.indexEnc)
	w.seriesPages, w.series = append(w.seriesPages, p), w.series[:0]
	w.inPage, w.pageKey = 0, w.pageKey[:0]
	return err
}

// Finish writes the index, syncs and closes the file. The caller renames it and
// syncs the folder.
func (w *Writer) Finish() (Meta, error) {
	if err := w.finish(); err != nil {
		return Meta{}, err
	}
	w.meta.Bytes = w.off
	return w.meta, nil
}

func (w *Writer) finish() error {
	if err := w.endSeries(); err != nil {
		return err
	}
	if err := w.endChunkPage(); err != nil {
		return err
	}
	if err := w.endSeriesPage(); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(w.postings))
	places := make([]place, len(names))
	for i, name := range names {
		var err error
		if places[i], err = w.section(encodePostings(w.postings[name]), w.indexEnc); err != nil {
			return err
		}
	}
	toc, err := w.toc(names, places)
	if err != nil {
		return err
	}
	p, err := w.section(toc, w.indexEnc)
	if err != nil {
		return err
	}
	foot := binary.LittleEndian.AppendUint64(nil, uint64(p.off))
	foot = binary.LittleEndian.AppendUint64(foot, uint64(p.len))
	foot = binary.LittleEndian.AppendUint32(foot, version)
	foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(foot, castagnoli))
	foot = append(foot, magic...)
	if err := w.write(foot); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	w.finished = true
	return w.f.Close()
}

func (w *Writer) toc(names []string, places []place) ([]byte, error) {
	meta, err := json.Marshal(w.meta)
	if err != nil {
		return nil, err
	}
	b := append(binary.AppendUvarint(nil, uint64(len(meta))), meta...)
	for _, pages := range [][]place{w.chunkPages, w.seriesPages} {
		b = binary.AppendUvarint(b, uint64(len(pages)))
		for _, p := range pages {
			b = appendPlace(b, p)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(names)))
	for i, n := range names {
		b = append(binary.AppendUvarint(b, uint64(len(n))), n...)
		b = appendPlace(b, places[i])
	}
	return b, nil
}

// encodePostings encodes one label's values and their ordinals, both ascending.
func encodePostings(values map[string][]uint32) []byte {
	b := binary.AppendUvarint(nil, uint64(len(values)))
	for _, v := range slices.Sorted(maps.Keys(values)) {
		ids := values[v]
		b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
		b = binary.AppendUvarint(b, uint64(len(ids)))
		prev := uint32(0)
		for _, id := range ids {
			b = binary.AppendUvarint(b, uint64(id-prev))
			prev = id
		}
	}
	return b
}

// Abort closes and removes an unfinished file. After Finish it does nothing.
func (w *Writer) Abort() error {
	if w.finished {
		return nil
	}
	w.finished = true
	return errors.Join(w.f.Close(), w.fsys.Remove(w.path))
}
