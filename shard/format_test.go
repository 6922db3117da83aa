package shard

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func sampleManifest() *Manifest {
	return &Manifest{Shard: 3, Applied: 17, Term: 1, Cut: math.MinInt64, NextNo: 9, NextBlock: 2,
		Table:  &TableRef{Name: "series-0000000000000011.tbl", Size: 10, CRC: 7},
		Blocks: []BlockRef{{Name: "0000000000000001.blk", Tier: Warm, MinT: -5, MaxT: 1000, Samples: 12, Bytes: 99, FromIndex: 1, ToIndex: 17}}}
}

func samplePayload() []byte {
	var o Op
	key := model.AppendKey(nil, labels.FromStrings("__name__", "m", "a", "b"))
	b := &model.Batch{
		Series: []model.BatchSeries{{Key: key, To: 3, HTo: 2, ETo: 1}},
		T:      []int64{1000, 2000, 500}, V: []float64{1.5, math.Copysign(0, -1), math.Inf(1)}, ST: []int64{1000, 0, 900},
		Hist:      []model.HistogramSample{{T: 1, H: tsdbutil.GenerateTestHistogram(1)}, {T: 2, FH: tsdbutil.GenerateTestFloatHistogram(2)}},
		Exemplars: []model.Exemplar{{T: 5, Value: 2, Labels: model.AppendKeyLabel(nil, "t", "x")}},
	}
	l := &Limits{MinT: math.MinInt64, MaxT: math.MaxInt64, MaxSeries: 100}
	o.add(b, &Item{Key: key}, l)
	p := append(PayloadHeader(nil), o.Bytes(l)...)
	return AppendDropOp(AppendCutOp(p, -77), []uint32{4, 5})
}

// TestGolden keeps version 1 of the manifest and of payloads readable.
func TestGolden(t *testing.T) {
	manifest, err := encodeManifest(sampleManifest())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"manifest.v1.golden": manifest, "payload.v1.golden": samplePayload()} {
		file := filepath.Join("testdata", name)
		if *rewrite {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, want) {
			t.Errorf("%s: what is written has changed; give the format a new version", name)
		}
	}
	h := newHead()
	if _, err := h.apply(1, samplePayload()); err != nil {
		t.Fatal(err)
	}
	if s := h.mu.byNo.get(1); s == nil || s.active.n != 2 || len(s.active.late.fresh) != 1 || len(s.active.more.hist) != 2 || s.active.st[0] != 1000 {
		t.Fatalf("%+v", s)
	}
}

// TestManifestFlips flips every bit of a manifest: none goes unnoticed.
func TestManifestFlips(t *testing.T) {
	b, err := encodeManifest(sampleManifest())
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(b) * 8 {
		c := bytes.Clone(b)
		c[i/8] ^= 1 << (i % 8)
		if _, err := decodeManifest("m", c); err == nil {
			t.Fatalf("bit %d: not noticed", i)
		}
	}
}

// TestNumbersAreNeverUsedAgain drops a series and looks at what an old number does.
func TestNumbersAreNeverUsedAgain(t *testing.T) {
	s, err := Open(Options{Dir: "d", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key := model.AppendKey(nil, labels.FromStrings("a", "b"))
	l := &Limits{MinT: math.MinInt64, MaxT: math.MaxInt64}
	index := uint64(0)
	send := func(at int64, no uint32) []Refusal {
		t.Helper()
		var o Op
		b := &model.Batch{Series: []model.BatchSeries{{Key: key, To: 1}}, T: []int64{at}, V: []float64{1}}
		o.add(b, &Item{Key: key, no: no}, l)
		index++
		res, err := s.Apply(index, append(PayloadHeader(nil), o.Bytes(l)...))
		if err != nil {
			t.Fatal(err)
		}
		return res[0].Refused
	}
	if r := send(1, 0); len(r) != 0 {
		t.Fatal(r)
	}
	index++
	if _, err := s.Apply(index, AppendDropOp(PayloadHeader(nil), []uint32{1})); err != nil {
		t.Fatal(err)
	}
	if r := send(2, 1); len(r) != 1 || !r[0].Gone {
		t.Fatalf("a number that is gone was taken: %v", r)
	}
	if r := send(3, 0); len(r) != 0 {
		t.Fatal(r)
	}
	if s.head.mu.byNo.get(1) != nil || s.head.mu.byNo.get(2) == nil {
		t.Fatal("a number was used again")
	}
	// What it had under either number is one series, also where no more are allowed.
	sel, err := s.Select(t.Context(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64, MaxSeries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer sel.Close()
	var c model.Columns
	if err := sel.Series[0].Read(&c); err != nil || !slices.Equal(c.T, []int64{1, 3}) {
		t.Errorf("it has samples at %v: %v", c.T, err)
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(samplePayload())
	f.Add(AppendChooseOp(samplePayload(), 1_000_000, "__replica__"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = newHead().apply(1, b)
	})
}

// TestManifestNames: no name in a manifest leads out of its folder.
func TestManifestNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "/", "/etc/x", "../x", "a/b", "a/"} {
		for _, change := range []func(*Manifest){
			func(m *Manifest) { m.Table = &TableRef{Name: name} },
			func(m *Manifest) { m.Blocks = append(m.Blocks, BlockRef{Name: name}) },
		} {
			m := sampleManifest()
			change(m)
			b, err := encodeManifest(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeManifest("m", b); !errors.Is(err, ErrManifest) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

func FuzzManifest(f *testing.F) {
	if b, err := encodeManifest(sampleManifest()); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decodeManifest("m", b) })
}

func FuzzHistogram(f *testing.F) {
	f.Add(AppendHistogram(nil, &model.HistogramSample{H: tsdbutil.GenerateTestHistogram(1)}))
	f.Add(AppendHistogram(nil, &model.HistogramSample{FH: tsdbutil.GenerateTestFloatHistogram(1)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHistogram(b, 1, 0)
		if err != nil {
			return
		}
		enc := AppendHistogram(nil, &h)
		if h, err = DecodeHistogram(enc, 1, 0); err != nil || !bytes.Equal(AppendHistogram(nil, &h), enc) {
			t.Fatalf("%v: does not survive the way there and back", err)
		}
	})
}

func FuzzTable(f *testing.F) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("d"); err != nil {
		f.Fatal(err)
	}
	ref, err := writeTable(fs, "d", "t", []tableEntry{{1, "a"}, {7, "b"}})
	if err != nil {
		f.Fatal(err)
	}
	b, err := vfs.ReadFile(fs, "d/"+ref.Name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) { _ = decodeTable(b, func(uint32, string) {}) })
}
