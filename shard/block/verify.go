package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// Verify reads everything in the block: every checksum, the order of the series,
// that postings and series say the same, and, through decode, every chunk.
func (r *Reader) Verify(ctx context.Context, decode func(kind chunk.Kind, data []byte) error) error {
	if err := r.VerifySums(ctx, nil); err != nil {
		return err
	}
	var key, prev, data []byte
	var metas []ChunkMeta
	var samples int64
	chunks := 0
	minT, maxT := int64(math.MaxInt64), int64(math.MinInt64)
	for ord := range uint32(r.meta.Series) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var err error
		if key, _, metas, err = r.Series(ord, key[:0], metas[:0]); err != nil {
			return err
		}
		at := r.seriesPages[ord/seriesPerPage].off
		if err := model.CheckKey(key); err != nil {
			return r.corrupt(at, err)
		}
		if ord > 0 && bytes.Compare(prev, key) >= 0 {
			return r.corrupt(at, fmt.Errorf("%w: series out of order", errFormat))
		}
		prev = append(prev[:0], key...)
		for i := range metas {
			m := &metas[i]
			if data, err = r.Chunk(m, data[:0]); err != nil {
				return err
			}
			if err := decode(m.Kind, data); err != nil {
				return r.corrupt(r.chunkPages[m.page].off, err)
			}
			samples, chunks = samples+int64(m.Count), chunks+1
			minT, maxT = min(minT, m.MinT), max(maxT, m.MaxT)
		}
	}
	if samples != r.meta.Samples || chunks != r.meta.Chunks || minT != r.meta.MinT || maxT != r.meta.MaxT {
		return r.corrupt(0, fmt.Errorf("%w: the table of contents counts other samples than the series hold", errFormat))
	}
	return r.verifyPostings()
}

// VerifySums reads every section and verifies its checksum, and that the sections fill
// the file without a gap, so that no byte goes unchecked. pace, if there is one, is told
// the size of what is about to be read and may wait.
func (r *Reader) VerifySums(ctx context.Context, pace func(bytes int) error) error {
	at := int64(headerSize)
	var buf []byte
	for _, places := range [][]place{r.merged(), r.postings} {
		for _, p := range places {
			if p.off != at {
				return r.corrupt(at, fmt.Errorf("%w: bytes that belong to no section", errFormat))
			}
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if pace != nil {
				if err := pace(int(p.len)); err != nil {
					return err
				}
			}
			packed, err := readPacked(r.f, r.path, p, buf)
			if err != nil {
				return err
			}
			buf = packed
			at += int64(p.len)
		}
	}
	return nil
}

// merged returns chunk and series pages in the order of the file.
func (r *Reader) merged() []place {
	var out []place
	a, b := r.chunkPages, r.seriesPages
	for len(a)+len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].off < b[0].off {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return out
}

func (r *Reader) verifyPostings() error {
	labels := 0
	for i, name := range r.names {
		if err := r.eachValue(name, func(v string, ids func() ([]uint32, error)) (bool, error) {
			list, err := ids()
			if err != nil {
				return false, err
			}
			for _, ord := range list {
				key, _, _, err := r.Series(ord, nil, nil)
				if err != nil {
					return false, err
				}
				if string(model.KeyValue(key, name)) != v {
					return false, r.corrupt(r.postings[i].off, fmt.Errorf("%w: postings name a series without the label", errFormat))
				}
				labels++
			}
			return true, nil
		}); err != nil {
			return err
		}
	}
	for ord := range uint32(r.meta.Series) {
		key, _, _, err := r.Series(ord, nil, nil)
		if err != nil {
			return err
		}
		for ; len(key) > 0; labels-- {
			_, _, key, _ = model.NextKeyLabel(key)
		}
	}
	if labels != 0 {
		return r.corrupt(0, fmt.Errorf("%w: postings miss a series", errFormat))
	}
	return nil
}

// Dump describes a block; with verbose also each series and chunk.
func Dump(fsys vfs.FS, path string, w io.Writer, verbose bool) (err error) {
	r, err := Open(fsys, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r.meta); err != nil || !verbose {
		return err
	}
	for ord := range uint32(r.meta.Series) {
		key, no, metas, err := r.Series(ord, nil, nil)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%d %s\n", no, model.KeyLabels(key)); err != nil {
			return err
		}
		for _, m := range metas {
			if _, err := fmt.Fprintf(w, "    kind %d, %d to %d, %d samples, %d bytes\n", m.Kind, m.MinT, m.MaxT, m.Count, m.len); err != nil {
				return err
			}
		}
	}
	return nil
}
