package partial

import (
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/kahansum"
)

// large is a value that a great many of would be needed for a sum to overflow. Where that
// may happen, the result depends on the order of the series; a mean then becomes a
// running one. So it does with infinite values.
const large = 1e300

// Fold gathers the values of series in their groups.
type Fold struct {
	req    *Request
	steps  int
	most   int // groups
	groups map[string]*Points
	order  []*Points
	b      *labels.Builder
	buf    []byte
	unfit  string
}

// pointsMost is the most points that a Fold holds, of 24 bytes each: some more than an
// answer has room for.
const pointsMost = 4 << 20

// NewFold returns a Fold for a request which holds at most maxPoints points, or fewer.
func NewFold(r *Request, maxPoints int) *Fold {
	steps := r.Steps()
	return &Fold{req: r, steps: steps, most: min(maxPoints, pointsMost) / steps, groups: map[string]*Points{}, b: labels.NewBuilder(labels.EmptyLabels())}
}

// Fits tells whether there is room for the groups of series with these labels, before
// anything is worked out that would be for nothing.
func (f *Fold) Fits(series []labels.Labels) bool {
	if len(series) <= f.most {
		return true
	}
	groups := map[string]bool{}
	for _, ls := range series {
		f.buf = f.req.groupKey(f.buf[:0], ls)
		groups[string(f.buf)] = true
	}
	return len(groups) <= f.most
}

// Series returns the points of the group of the series with these labels, to be given
// to Float and Histogram. first are the labels that it is stored with.
func (f *Fold) Series(ls, first labels.Labels) *Points {
	f.buf = f.req.groupKey(f.buf[:0], ls)
	p := f.groups[string(f.buf)]
	if p == nil {
		if len(f.order) >= f.most {
			f.unfit = unfitLarge
			return nil
		}
		p = &Points{Labels: f.req.group(f.b, ls), First: first}
		p.grow(f.req.Op, f.steps)
		f.groups[string(f.buf)] = p
		f.order = append(f.order, p)
	} else if labels.Compare(first, p.First) < 0 {
		p.First = first
	}
	return p
}

// Float adds the value of a series at a step. Values come in the order of the series.
func (f *Fold) Float(p *Points, step int, v float64) {
	n := p.N[step]
	switch f.req.Op {
	case Sum, Avg:
		if math.Abs(v) > large && (f.req.Op == Avg || !math.IsInf(v, 0)) {
			f.unfit = unfitOverflow
		}
		if n == 0 {
			p.V[step] = v
		} else {
			p.add(step, v, 0)
		}
	case Min:
		if n == 0 || p.V[step] > v || math.IsNaN(p.V[step]) {
			p.V[step] = v
		}
	case Max:
		if n == 0 || p.V[step] < v || math.IsNaN(p.V[step]) {
			p.V[step] = v
		}
	}
	p.count(f.req.Op, step, 1)
}

// Histogram adds a native histogram, of which only counts can do without its value.
func (f *Fold) Histogram(p *Points, step int) {
	if f.req.Op.values() {
		f.unfit = unfitHistograms
		return
	}
	p.count(f.req.Op, step, 1)
}

// Unfit tells why the answer will be; "": it won't, so far.
func (f *Fold) Unfit() string { return f.unfit }

// Groups returns what has been gathered.
func (f *Fold) Groups() []*Points { return f.order }

func (p *Points) count(op Op, step int, n uint64) {
	if op == Avg || op == Count {
		p.N[step] += n
	} else {
		p.N[step] = 1
	}
}

// add adds a sum and its compensation.
func (p *Points) add(step int, v, c float64) {
	p.V[step], p.C[step] = kahansum.Inc(v, p.V[step], p.C[step])
	if !math.IsInf(p.V[step], 0) {
		p.C[step] += c
	}
}
