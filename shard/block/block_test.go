package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// sample is what a test puts into a block: what must come out again.
type sample struct {
	key    []byte
	labels labels.Labels
	no     uint64
	chunks []chunkIn
}

type chunkIn struct {
	meta ChunkMeta
	data []byte
}

// randomSeries makes n series with distinct keys, in order.
func randomSeries(rng *rand.Rand, n int) []sample {
	byKey := map[string]sample{}
	for len(byKey) < n {
		b := labels.NewBuilder(labels.FromStrings("__name__", fmt.Sprint("metric_", rng.IntN(7)), "pod", fmt.Sprint("pod-", rng.IntN(4*n))))
		for _, name := range []string{"a", "b", "é"} {
			if rng.IntN(2) == 0 {
				b.Set(name, fmt.Sprint(rng.IntN(5)))
			}
		}
		s := sample{labels: b.Labels(), no: rng.Uint64N(1 << 40)}
		s.key = model.AppendKey(nil, s.labels)
		s.chunks = randomChunks(rng)
		byKey[string(s.key)] = s
	}
	out := make([]sample, 0, n)
	for _, s := range byKey {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b sample) int { return bytes.Compare(a.key, b.key) })
	return out
}

func randomChunks(rng *rand.Rand) []chunkIn {
	var out []chunkIn
	for _, kind := range []chunk.Kind{chunk.Floats, chunk.Blobs, chunk.Exemplars} {
		t := int64(rng.IntN(10_000)) - 5_000
		for range rng.IntN(4) {
			c := chunkIn{data: make([]byte, rng.IntN(900))}
			for i := range c.data {
				c.data[i] = byte(rng.IntN(1 + rng.IntN(256)))
			}
			c.meta = ChunkMeta{Kind: kind, MinT: t, MaxT: t + int64(rng.IntN(1000)), Count: 1 + rng.IntN(300)}
			if kind == chunk.Floats {
				c.meta.Stats = randomStats(rng, c.meta.Count)
			}
			t = c.meta.MaxT + 1 + int64(rng.IntN(1000))
			out = append(out, c)
		}
	}
	return out
}

func randomStats(rng *rand.Rand, count int) chunk.Stats {
	vs := make([]float64, count)
	odd := []float64{math.NaN(), math.Inf(1), math.Copysign(0, -1), math.Float64frombits(0x7ff0000000000002), 1e300}
	for i := range vs {
		if vs[i] = float64(rng.IntN(1000)) / 10; rng.IntN(40) == 0 {
			vs[i] = odd[rng.IntN(len(odd))]
		}
	}
	return chunk.StatsOf(vs)
}

func writeBlock(t testing.TB, fs vfs.FS, path string, level int, in []sample) Meta {
	t.Helper()
	w, err := NewWriter(fs, path, WriterOptions{
		Meta: Meta{ID: "b1", Shard: 3, Tier: 1, Level: 2, FromIndex: 10, ToIndex: 20}, Compression: level,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range in {
		if err := w.StartSeries(s.key, s.no); err != nil {
			t.Fatal(err)
		}
		for _, c := range s.chunks {
			var stats *chunk.Stats
			if c.meta.Kind == chunk.Floats {
				stats = &c.meta.Stats
			}
			if err := w.AddChunk(c.meta.Kind, c.meta.MinT, c.meta.MaxT, c.meta.Count, stats, c.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	meta, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Fatalf("Abort after Finish: %v", err)
	}
	return meta
}

func openBlock(t testing.TB, fs vfs.FS, path string) *Reader {
	t.Helper()
	r, err := Open(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// statsBits makes statistics comparable where they hold NaNs.
func statsBits(s chunk.Stats) [8]uint64 {
	return [8]uint64{
		uint64(s.Count), uint64(s.NaNs), uint64(s.Resets), math.Float64bits(s.Sum), math.Float64bits(s.Min),
		math.Float64bits(s.Max), math.Float64bits(s.First), math.Float64bits(s.Last),
	}
}

// sameSeries reports how a series as read differs from what was written.
func sameSeries(r *Reader, ord int, want *sample) error {
	key, no, metas, err := r.Series(uint32(ord), []byte("kept"), nil)
	if err != nil {
		return err
	}
	if string(key) != "kept"+string(want.key) || no != want.no || len(metas) != len(want.chunks) {
		return fmt.Errorf("series %d: %q, number %d, %d chunks", ord, key, no, len(metas))
	}
	for i := range metas {
		m, w := &metas[i], &want.chunks[i]
		if m.Kind != w.meta.Kind || m.MinT != w.meta.MinT || m.MaxT != w.meta.MaxT || m.Count != w.meta.Count {
			return fmt.Errorf("series %d chunk %d: %+v, want %+v", ord, i, *m, w.meta)
		}
		if statsBits(m.Stats) != statsBits(w.meta.Stats) {
			return fmt.Errorf("series %d chunk %d: statistics %+v, want %+v", ord, i, m.Stats, w.meta.Stats)
		}
		data, err := r.Chunk(m, []byte("kept"))
		if err != nil {
			return err
		}
		if string(data) != "kept"+string(w.data) {
			return fmt.Errorf("series %d chunk %d: other bytes", ord, i)
		}
	}
	return nil
}

func anyChunk(chunk.Kind, []byte) error { return nil }

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		level := int(seed % 5)
		in := randomSeries(rng, []int{1, 63, 64, 65, 300}[rng.IntN(5)])
		in[0].chunks = append(in[0].chunks, chunkIn{ // there is a sample in each block
			meta: ChunkMeta{Kind: chunk.Exemplars, MinT: 1 << 40, MaxT: 1 << 40, Count: 1}, data: []byte{1},
		})
		fs := vfs.NewMem()
		meta := writeBlock(t, fs, "b", level, in)
		r := openBlock(t, fs, "b")
		if r.Meta() != meta {
			t.Fatalf("seed %d: read %+v, wrote %+v", seed, r.Meta(), meta)
		}
		checkMeta(t, meta, in)
		for _, ord := range rng.Perm(len(in)) {
			if err := sameSeries(r, ord, &in[ord]); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if _, _, _, err := r.Series(uint32(len(in)), nil, nil); err == nil {
			t.Fatal("a series beyond the last was found")
		}
		if err := r.Verify(context.Background(), anyChunk); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func checkMeta(t *testing.T, meta Meta, in []sample) {
	t.Helper()
	want := Meta{ID: "b1", Shard: 3, Tier: 1, Level: 2, FromIndex: 10, ToIndex: 20, Series: len(in), MinT: math.MaxInt64, MaxT: math.MinInt64}
	for _, s := range in {
		for _, c := range s.chunks {
			want.Chunks++
			want.Samples += int64(c.meta.Count)
			want.MinT, want.MaxT = min(want.MinT, c.meta.MinT), max(want.MaxT, c.meta.MaxT)
		}
	}
	want.Bytes, want.Compression = meta.Bytes, meta.Compression
	if meta != want || meta.Bytes == 0 {
		t.Fatalf("meta %+v, want %+v", meta, want)
	}
}

// TestSelectAgainstScan compares selection with trying each matcher on each series.
func TestSelectAgainstScan(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	in := randomSeries(rng, 300)
	fs := vfs.NewMem()
	writeBlock(t, fs, "b", 0, in)
	r := openBlock(t, fs, "b")
	patterns := []string{"", "1", "1|2", ".*", ".+", "metric_1", "metric_.*", "pod-1.*", "|3", "[12]", "(?i)METRIC_2", "pod-7"}
	names := []string{"__name__", "a", "b", "pod", "é", "none"}
	for range 2000 {
		ms := make([]*labels.Matcher, rng.IntN(4))
		for i := range ms {
			ms[i] = labels.MustNewMatcher(labels.MatchType(rng.IntN(4)), names[rng.IntN(len(names))], patterns[rng.IntN(len(patterns))])
		}
		var want []uint32
		for ord, s := range in {
			if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
				want = append(want, uint32(ord))
			}
		}
		got, err := r.Select(context.Background(), ms)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%v: got %v, %v, want %v", ms, got, err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Select(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("Select under an ended context: %v", err)
	}
}

func TestWriterRefuses(t *testing.T) {
	key := func(v string) []byte { return model.AppendKey(nil, labels.FromStrings("a", v)) }
	for name, act := range map[string]func(w *Writer) error{
		"a key out of order":    func(w *Writer) error { return w.StartSeries(key("1"), 9) },
		"a key again":           func(w *Writer) error { return w.StartSeries(key("2"), 9) },
		"a malformed key":       func(w *Writer) error { return w.StartSeries([]byte("zzz"), 9) },
		"an overlapping chunk":  func(w *Writer) error { return w.AddChunk(chunk.Blobs, 5, 9, 1, nil, nil) },
		"a kind out of order":   func(w *Writer) error { return w.AddChunk(chunk.Floats, 50, 90, 1, &chunk.Stats{Count: 1}, nil) },
		"times turned round":    func(w *Writer) error { return w.AddChunk(chunk.Blobs, 90, 50, 1, nil, nil) },
		"a chunk of no samples": func(w *Writer) error { return w.AddChunk(chunk.Blobs, 90, 95, 0, nil, nil) },
	} {
		fs := vfs.NewMem()
		w, err := NewWriter(fs, "b", WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.StartSeries(key("2"), 1); err != nil {
			t.Fatal(err)
		}
		if err := w.AddChunk(chunk.Blobs, 1, 5, 1, nil, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if act(w) == nil {
			t.Errorf("%s was taken", name)
		}
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
		if names, err := fs.List("."); err != nil || len(names) > 0 {
			t.Errorf("%s: Abort left %v, %v", name, names, err)
		}
	}
}

func TestDump(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	in := randomSeries(rng, 70)
	fs := vfs.NewMem()
	writeBlock(t, fs, "b", 1, in)
	var short, long strings.Builder
	if err := errors.Join(Dump(fs, "b", &short, false), Dump(fs, "b", &long, true)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(short.String(), `"series": 70`) || !strings.HasPrefix(long.String(), short.String()) {
		t.Fatalf("dump:\n%s", short.String())
	}
	for _, s := range in {
		if !strings.Contains(long.String(), s.labels.String()) {
			t.Fatalf("the dump leaves out %v", s.labels)
		}
	}
	if err := Dump(fs, "none", io.Discard, true); err == nil {
		t.Fatal("a missing file was dumped")
	}
}
