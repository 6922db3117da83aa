package shard

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/strandline-db/strandline/shard/model"
)

// Hash reads everything the shard holds above its retention cut and returns a hash of
// it together with the index of the last applied entry. Replicas at the same index
// have the same hash, however their samples are stored.
func (s *Shard) Hash(ctx context.Context) (index, sum uint64, err error) {
	return s.BeginHash()(ctx)
}

// BeginHash fixes, quickly, what finish hashes, which is to be called once: in apply, to
// hash what the shard holds at one entry.
func (s *Shard) BeginHash() (finish func(context.Context) (index, sum uint64, err error)) {
	sel := s.Hold().Fix([]*model.SelectRequest{{MinT: math.MinInt64, MaxT: math.MaxInt64}})[0]
	return func(ctx context.Context) (uint64, uint64, error) { return hashSelection(ctx, sel) }
}

func hashSelection(ctx context.Context, sel *Selection) (index, sum uint64, err error) {
	defer func() {
		if cerr := sel.Close(); err == nil {
			err = cerr
		}
	}()
	if err := sel.Fill(ctx); err != nil {
		return 0, 0, err
	}
	d := xxhash.New()
	var r seriesReader
	var buf []byte
	for _, x := range sel.Series {
		if ctx.Err() != nil {
			return 0, 0, context.Cause(ctx)
		}
		series := x.(*selected)
		if err := series.gather(&r); err != nil {
			return 0, 0, err
		}
		if len(r.m.cols.T)+len(r.m.hist)+len(r.ex) == 0 {
			continue
		}
		buf = append(binary.AppendUvarint(buf[:0], uint64(len(series.key))), series.key...)
		buf = appendHashed(buf, &r)
		_, _ = d.Write(buf) // never fails
	}
	return sel.applied, d.Sum64(), nil
}

func appendHashed(dst []byte, r *seriesReader) []byte {
	c := &r.m.cols
	for i, t := range c.T {
		st := int64(0)
		if i < len(c.ST) {
			st = c.ST[i]
		}
		dst = binary.LittleEndian.AppendUint64(dst, uint64(t))
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(c.V[i]))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(st))
	}
	for k, blobs := range [][]blob{r.m.hist, r.ex} {
		dst = append(dst, byte(k))
		for _, b := range blobs {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.t))
			dst = binary.LittleEndian.AppendUint64(dst, uint64(b.st))
			dst = append(binary.AppendUvarint(dst, uint64(len(b.data))), b.data...)
		}
	}
	return dst
}
