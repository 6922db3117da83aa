package partial

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

func sampleRequest(op Op) *Request {
	return &Request{Op: op, Grouping: []string{"a", "b"}, Text: "    rate(m[5m])", Start: time.Unix(-3, 0), End: time.Unix(57, 5),
		Step: 15 * time.Second, Lookback: 5 * time.Minute, StartTimestamps: true, Metric: "m", ReplicaLabel: "replica", MaxSeries: 7}
}

// fold puts the values of series, one for each step, NaN with bits of a stale marker: none.
func fold(r *Request, series ...[]float64) *Answer {
	f := NewFold(r, 1000)
	for i, vs := range series {
		p := f.Series(labels.FromStrings("a", "1", "c", string(rune('0'+i))), labels.FromStrings("__name__", "m", "a", "1", "c", string(rune('0'+i))))
		for step, v := range vs {
			if !value.IsStaleNaN(v) {
				f.Float(p, step, v)
			}
		}
	}
	return &Answer{Unfit: f.Unfit(), Groups: f.Groups(), Cost: Cost{Series: int64(len(series)), Samples: 9, SamplesRead: 8, Peak: 7},
		Notes: []Note{{true, "raw", "raw (1:5)"}}}
}

func TestCodec(t *testing.T) {
	for op := Sum; op <= Group; op++ {
		r := sampleRequest(op)
		if got, err := ParseRequest(r.Append(nil)); err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%+v, want %+v, %v", got, r, err)
		}
		a := fold(r, []float64{1, math.Copysign(0, -1), math.Float64frombits(value.StaleNaN), 0.1, 5}, []float64{1e17, math.Float64frombits(value.StaleNaN)})
		got, err := ParseAnswer(a.Append(nil, op), op, r.Steps(), 1000)
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Fatalf("%v: %+v, want %+v, %v", op, got, a, err)
		}
		if _, err := ParseAnswer(a.Append(nil, op), op, r.Steps(), r.Steps()-1); err == nil {
			t.Error("more points than allowed")
		}
	}
	a := &Answer{Unfit: "why"}
	if got, err := ParseAnswer(a.Append(nil, Sum), Sum, 1, 1); err != nil || got.Unfit != "why" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []func(*Request){
		func(r *Request) { r.Op = 9 }, func(r *Request) { r.Grouping = []string{"b", "a"} }, func(r *Request) { r.Step = time.Microsecond },
		func(r *Request) { r.End = r.Start.Add(-1) }, func(r *Request) { r.Step = 0 }, func(r *Request) { r.Lookback = 0 },
		func(r *Request) { r.Step, r.End = time.Millisecond, r.Start.Add(24*time.Hour) },
		func(r *Request) { r.Start = r.Start.Add(5) },
		func(r *Request) { r.Start, r.End = r.Start.AddDate(600, 0, 0), r.End.AddDate(600, 0, 0) },
	} {
		r := sampleRequest(Sum)
		bad(r)
		if _, err := ParseRequest(r.Append(nil)); err == nil {
			t.Errorf("taken: %+v", r)
		}
	}
}

// TestMerge: results in the order of the first series, sums with what was lost to
// rounding, and no result where it would depend on the order of series.
func TestMerge(t *testing.T) {
	one := &Request{Op: Sum, Grouping: []string{"a"}, Lookback: 1}
	merge := func(op Op, parts ...[]float64) *Answer {
		r := *one
		r.Op = op
		var all []*Answer
		for _, vs := range parts {
			var series [][]float64
			for _, v := range vs {
				series = append(series, []float64{v})
			}
			all = append(all, fold(&r, series...))
		}
		return Merge(&r, all)
	}
	inf, nan, minus := math.Inf(1), math.NaN(), math.Copysign(0, -1)
	for _, c := range []struct {
		op    Op
		parts [][]float64
		want  float64
		unfit bool
	}{
		{Sum, [][]float64{{1e20, 1}, {-1e20, 1}}, 2, false},
		{Sum, [][]float64{{inf, 1}, {2}}, inf, false},
		{Sum, [][]float64{{inf}, {-inf}}, nan, false},
		{Sum, [][]float64{{minus}, {}}, 0, false},
		{Sum, [][]float64{{1e308}, {1}}, 0, true},
		{Avg, [][]float64{{1, 2}, {6}}, 3, false},
		{Avg, [][]float64{{inf}, {6}}, 0, true},
		{Avg, [][]float64{{nan}, {6}}, nan, false},
		{Min, [][]float64{{3, nan}, {2}}, 2, false},
		{Max, [][]float64{{nan}, {nan}}, nan, false},
		{Max, [][]float64{{nan, 1}, {nan}}, 1, false},
		{Max, [][]float64{{0, minus}, {minus}}, 0, true},
		{Min, [][]float64{{minus}, {minus}}, minus, false},
		{Count, [][]float64{{1, 1}, {1}}, 3, false},
		{Group, [][]float64{{5, 5}, {5}}, 1, false},
	} {
		a := merge(c.op, c.parts...)
		if (a.Unfit != "") != c.unfit {
			t.Errorf("%v %v: unfit %q", c.op, c.parts, a.Unfit)
		} else if a.Unfit == "" {
			if v := a.Groups[0].V[0]; math.Float64bits(v) != math.Float64bits(c.want) && !(math.IsNaN(v) && math.IsNaN(c.want)) {
				t.Errorf("%v %v: %g", c.op, c.parts, v)
			}
		}
	}
	x, y := fold(one, []float64{1}), fold(one, []float64{1})
	y.Notes[0].Full = "raw (2 times)"
	if Merge(one, []*Answer{x, y}).Unfit == "" {
		t.Error("notes that can't be one")
	}
	f := NewFold(one, 1000)
	if f.Histogram(f.Series(labels.EmptyLabels(), labels.EmptyLabels()), 0); f.Unfit() == "" {
		t.Error("a sum of histograms")
	}
	f = NewFold(one, 1)
	if two := []labels.Labels{labels.FromStrings("a", "1", "b", "1"), labels.FromStrings("a", "1", "b", "2")}; !f.Fits(two) ||
		f.Fits(append(two, labels.FromStrings("a", "2"))) {
		t.Error("room for one group")
	}
	f.Series(labels.FromStrings("a", "1"), labels.EmptyLabels())
	if f.Series(labels.FromStrings("a", "2"), labels.EmptyLabels()) != nil || f.Unfit() == "" {
		t.Error("more groups than allowed")
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(sampleRequest(Avg).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			return
		}
		if n := r.Steps(); n < 1 || n > maxSteps {
			t.Fatalf("%d steps", n)
		}
		if again, err := ParseRequest(r.Append(nil)); err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v, want %+v, %v", again, r, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for op := Sum; op <= Group; op++ {
		f.Add(byte(op), fold(sampleRequest(op), []float64{1, 2, 3, 4, 5}).Append(nil, op))
	}
	f.Add(byte(Sum), (&Answer{Unfit: "x"}).Append(nil, Sum))
	f.Fuzz(func(t *testing.T, op byte, b []byte) {
		r := sampleRequest(Op(op%6 + 1))
		a, err := ParseAnswer(b, r.Op, r.Steps(), 100)
		if err != nil {
			return
		}
		if again, err := ParseAnswer(a.Append(nil, r.Op), r.Op, r.Steps(), 100); err != nil || len(again.Groups) != len(a.Groups) {
			t.Fatal(err)
		}
		other, err := ParseAnswer(b, r.Op, r.Steps(), 100)
		if err != nil {
			t.Fatal(err)
		}
		Merge(r, []*Answer{a, other})
	})
}
