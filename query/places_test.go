package query_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	storageengine "github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
	"github.com/strandline-db/strandline/wal/vfs"
)

// places is an engine whose data is spread over head, late samples and tiers, and a store
// that has the same.
type places struct {
	*storageengine.DB
	t     *testing.T
	r     *rand.Rand
	opts  storageengine.Options
	store *querytest.Store
	clock *clock.Manual
	bases []int64 // of what was written
}

func newPlaces(t *testing.T, r *rand.Rand) *places {
	t.Helper()
	p := &places{t: t, r: r, store: querytest.New(), clock: clock.NewManual(time.UnixMilli(1_700_000_000_000))}
	p.opts = storageengine.Options{FS: vfs.NewMem(), Clock: p.clock, Shards: 1 + r.IntN(3), Retention: -1, MinFreeBytes: -1, FlushInterval: math.MaxInt64}
	p.open()
	return p
}

func (p *places) open() {
	p.t.Helper()
	var err error
	if p.DB, err = storageengine.Open("data", &p.opts); err != nil {
		p.t.Fatal(err)
	}
}

// write stores some series about a time that is now, or was, or was written to before.
func (p *places) write() {
	p.t.Helper()
	base := p.clock.Now().UnixMilli()
	switch p.r.IntN(8) {
	case 0, 1:
		base -= p.r.Int64N((60 * 24 * time.Hour).Milliseconds())
	case 2:
		base = 0
	case 3:
		base = []int64{math.MaxInt64/4 - 3_600_000, math.MinInt64/4 + 3_600_000}[p.r.IntN(2)]
	case 4, 5:
		if len(p.bases) > 0 {
			base = p.bases[p.r.IntN(len(p.bases))]
		}
	}
	p.bases = append(p.bases, base)
	b := &model.Batch{}
	for range 1 + p.r.IntN(12) {
		kind := p.r.IntN(len(wideNames))
		addWide(b, p.r, kind, base, wideKey(wideNames[kind], p.r.IntN(12)))
	}
	for _, w := range []querytest.ReadWriter{p.DB, p.store} {
		res, err := w.Append(context.Background(), b)
		if err != nil || len(res.Rejected) > 0 {
			p.t.Fatalf("%+v, %v", res, err)
		}
	}
}

func (p *places) step() {
	p.t.Helper()
	var err error
	switch p.r.IntN(12) {
	case 0, 1:
		err = p.Flush(context.Background())
	case 2:
		p.clock.Advance(time.Duration(p.r.Int64N(300)) * time.Hour)
	case 3:
		err = p.Maintain(context.Background())
	case 4:
		if err = p.Close(); err == nil {
			p.open()
		}
	default:
		p.write()
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// span draws a time range that begins or ends among the samples, or is open.
func (p *places) span() (minT, maxT int64) {
	base := p.bases[p.r.IntN(len(p.bases))]
	minT = base + p.r.Int64N(30*60_000) - 6*60_000
	maxT = minT + p.r.Int64N(20*60_000)
	switch p.r.IntN(6) {
	case 0:
		minT = math.MinInt64
	case 1:
		maxT = math.MaxInt64
	case 2:
		maxT = minT
	}
	return minT, maxT
}

// compare reads the same of both.
func (p *places) compare(g grammar) {
	p.t.Helper()
	req := &model.SelectRequest{}
	req.MinT, req.MaxT = p.span()
	text := g.selector()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Matchers = expr.(*parser.VectorSelector).LabelMatchers
	if got, want := p.read(p.DB, req), p.read(p.store, req); !slices.Equal(got, want) {
		p.t.Errorf("%s from %d to %d:\n%v\nwant\n%v", text, req.MinT, req.MaxT, got, want)
	}
	req.MinT, req.MaxT = math.MinInt64, math.MaxInt64
	for _, name := range []string{"", "text", "Zone", "__name__", "nothing"} {
		ask := func(r model.Reader) (list []string, err error) {
			if name == "" {
				return r.LabelNames(context.Background(), req)
			}
			return r.LabelValues(context.Background(), name, req)
		}
		got, gerr := ask(p.DB)
		want, werr := ask(p.store)
		if gerr != nil || werr != nil || !slices.Equal(got, want) {
			p.t.Errorf("%s: label %q: %q, %v, want %q, %v", text, name, got, gerr, want, werr)
		}
	}
}

// read shows every sample that a request gives; series without any are left out.
func (p *places) read(r model.Reader, req *model.SelectRequest) (out []string) {
	p.t.Helper()
	sel, err := model.Select(context.Background(), r, req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer sel.Close()
	if !slices.IsSortedFunc(sel.Series, func(a, b model.Series) int { return labels.Compare(a.Labels(), b.Labels()) }) {
		p.t.Error("series are not sorted")
	}
	for _, s := range sel.Series {
		var c model.Columns
		if err := s.Read(&c); err != nil {
			p.t.Fatal(err)
		}
		for i, t := range c.T {
			st := int64(0)
			if len(c.ST) > 0 {
				st = c.ST[i]
			}
			out = append(out, fmt.Sprintf("%v %d %x since %d", s.Labels(), t, math.Float64bits(c.V[i]), st))
		}
		for _, h := range c.Hist {
			out = append(out, fmt.Sprintf("%v %d %v %v since %d", s.Labels(), h.T, h.H, h.FH, h.ST))
		}
	}
	return out
}

// TestPlaces: what is read is what was written, wherever it lies.
func TestPlaces(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	for range 4 {
		p := newPlaces(t, r)
		p.write()
		a := &asking{whole: engine(t, p.store, nil)}
		for range 40 {
			p.step()
			a.far = engine(t, p.DB, nil)
			g := grammar{r: r, base: p.bases[r.IntN(len(p.bases))]}
			for range 4 {
				p.compare(g)
				a.expr = g.vector(1 + r.IntN(2))
				a.start, a.end, a.step = g.span()
				if a.compare(t); t.Failed() {
					return
				}
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
