package block

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/strandline-db/strandline/wal/vfs"
)

// seedBlock is a small valid file.
func seedBlock(t testing.TB) []byte {
	fs := vfs.NewMem()
	writeBlock(t, fs, "b", 1, randomSeries(rand.New(rand.NewPCG(1, 2)), 5))
	return fileBytes(t, fs, "b")
}

// FuzzOpen feeds whole files: header, footer, sections.
func FuzzOpen(f *testing.F) {
	good := seedBlock(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		putFile(t, fs, "b", b)
		r, err := Open(fs, "b")
		if err != nil {
			return
		}
		_ = r.Verify(context.Background(), anyChunk) // any answer will do, short of a panic
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzTOC feeds tables of contents behind their checksum.
func FuzzTOC(f *testing.F) {
	f.Add([]byte("\x02{}\x00\x00\x00"))
	f.Add([]byte("\x0c{\"series\":1}\x01\x10\x08\x01\x18\x08\x01\x01a\x20\x09"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		r := &Reader{path: "b"}
		_ = r.parseTOC(b)
	})
}

// FuzzSeriesPage feeds pages of series behind their checksum.
func FuzzSeriesPage(f *testing.F) {
	f.Add([]byte("\x00\x03abc\x07\x00"), 1)
	f.Add([]byte("\x00\x03abc\x07\x01\x02\x04\x05\x01\x00\x00\x09\x02\x01d\x08\x00"), 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		c := cursor{b: b}
		var key []byte
		var metas []ChunkMeta
		for i := 0; i < n && i < seriesPerPage && !c.bad; i++ {
			key, _, metas = c.series(key, 0, metas[:0])
			if len(key) > len(b)*(i+1) {
				t.Fatal("a key grew out of nothing")
			}
		}
	})
}

// FuzzPostings feeds lists of ordinals behind their checksum.
func FuzzPostings(f *testing.F) {
	f.Add([]byte("\x03\x00\x01\x05"), uint16(9))
	f.Add([]byte("\x02\x08\x01"), uint16(9))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		series := int(n) // never negative: the TOC is refused then
		c := cursor{b: b}
		ids := c.ids(series)
		for i, x := range ids {
			if int64(x) >= int64(series) || (i > 0 && ids[i-1] >= x) {
				t.Fatalf("ids %v of %d series", ids, series)
			}
		}
	})
}
