package block

import (
	"context"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

var rewrite = flag.Bool("rewrite", false, "write the samples under testdata anew")

const golden = "testdata/v1.blk"

// goldenSeries is what the checked-in block holds. Never change it: that the block
// of an older program reads back as this is the point.
func goldenSeries() []sample {
	var out []sample
	for i, v := range []string{"1", "2", "é"} {
		s := sample{labels: labels.FromStrings("__name__", "up", "job", v), no: uint64(100 - i)}
		s.key = model.AppendKey(nil, s.labels)
		stats := chunk.Stats{Count: 3, Sum: 0.5, Min: -3, Max: 2.5, First: 1, Last: -3, Resets: 1} // of 1, 2.5, -3
		s.chunks = []chunkIn{
			{meta: ChunkMeta{Kind: chunk.Floats, MinT: -5, MaxT: 1000, Count: 3, Stats: stats}, data: []byte("floats " + v)},
			{meta: ChunkMeta{Kind: chunk.Floats, MinT: 1001, MaxT: 1 << 40, Count: 3, Stats: stats}, data: []byte("more floats")},
			{meta: ChunkMeta{Kind: chunk.Exemplars, MinT: 7, MaxT: 7, Count: 1}, data: []byte("exemplar")},
		}
		out = append(out, s)
	}
	return out
}

// TestGolden reads the checked-in sample of version 1.
func TestGolden(t *testing.T) {
	in, fs := goldenSeries(), vfs.NewMem()
	if *rewrite {
		writeBlock(t, fs, "new", 3, in)
		if err := os.WriteFile(golden, fileBytes(t, fs, "new"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	putFile(t, fs, "v1", b)
	r := openBlock(t, fs, "v1")
	for ord := range in {
		if err := sameSeries(r, ord, &in[ord]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Select(context.Background(), []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "job", "2|é")})
	if err != nil || !slices.Equal(got, []uint32{1, 2}) {
		t.Fatalf("Select = %v, %v", got, err)
	}
	if err := r.Verify(context.Background(), anyChunk); err != nil {
		t.Fatal(err)
	}
	checkMeta(t, r.Meta(), in)
}
