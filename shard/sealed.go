package shard

import (
	"sort"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
)

// sealedChunks finds samples in the sealed chunks of a store without decoding all of them.
// It remembers where it looked last: late samples often ask for neighbours.
type sealedChunks struct {
	of     []byte   // a store's sealed chunks, which are only ever appended to
	chunks [][]byte // each of them
	ts     []int64
	cols   model.Columns // the last one decoded
}

// around decodes the chunk in which a sample at t must be, valid until the next call. It
// is empty if all chunks begin after t.
func (c *sealedChunks) around(d *chunk.Decoder, sealed []byte, t int64) (*model.Columns, error) {
	if len(c.of) == 0 || len(c.of) != len(sealed) || &c.of[0] != &sealed[0] {
		if err := c.split(sealed); err != nil {
			return nil, err
		}
	}
	if n := len(c.cols.T); n > 0 && c.cols.T[0] <= t && t <= c.cols.T[n-1] {
		return &c.cols, nil
	}
	var err error
	i := sort.Search(len(c.chunks), func(i int) bool {
		var derr error
		if c.ts, derr = d.Timestamps(c.chunks[i], c.ts[:0]); derr != nil {
			err = derr
			return true
		}
		return c.ts[0] > t
	}) - 1
	c.cols.Reset()
	if err != nil || i < 0 {
		return &c.cols, err
	}
	c.cols.T, c.cols.V, c.cols.ST, err = d.Floats(c.chunks[i], c.cols.T, c.cols.V, c.cols.ST)
	return &c.cols, err
}

// split finds the chunks.
func (c *sealedChunks) split(sealed []byte) error {
	c.of, c.chunks = nil, c.chunks[:0]
	c.cols.Reset()
	for r := (reader{b: sealed}); len(r.b) > 0; {
		b := r.bytes()
		if r.err != nil {
			return r.err
		}
		c.chunks = append(c.chunks, b)
	}
	c.of = sealed
	return nil
}
