package partial

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
)

// MaxNotes is the most notes of an answer; more would not be worth their way.
const MaxNotes = 1000

// Reasons for which an answer is unfit.
const (
	unfitHistograms = "it meets native histograms"
	unfitOverflow   = "a sum may overflow, and then depends on the order of its series"
	unfitTie        = "equal values that are not identical: their order decides"
	unfitNotes      = "nodes have different notes to one"
	unfitLarge      = "too many groups"
)

// Answer is what one node has to say to a request.
type Answer struct {
	// Unfit, if set, says why the partial results would not give what one evaluation over
	// all series gives, or why there are none; then nothing else is.
	Unfit  string
	Cost   Cost
	Notes  []Note
	Groups []*Points
}

// Cost is what an evaluation took, in the words of Prometheus' statistics.
type Cost struct {
	Series, Samples, SamplesRead, Peak int64
}

// Add adds another node's cost. Peaks are not at the same place: the higher counts.
func (c *Cost) Add(o Cost) {
	c.Series += o.Series
	c.Samples += o.Samples
	c.SamplesRead += o.SamplesRead
	c.Peak = max(c.Peak, o.Peak)
}

// Note is an annotation as text: alone, and with its place in the query.
type Note struct {
	Info      bool // not a warning
	Raw, Full string
}

// Points are the partial result of one group: a value for each step.
type Points struct {
	Labels labels.Labels
	// First are the labels of the first of the group's series: groups are in this order.
	First labels.Labels
	// N counts the values of a step; 0: the group has none there. Only Avg and Count need
	// more than 0 and 1.
	N []uint64
	// V is the sum, the least or the greatest value, and C the compensation of a sum. V
	// is empty for Count and Group, C for all but Sum and Avg.
	V, C []float64
}

func (op Op) sums() bool   { return op == Sum || op == Avg }
func (op Op) values() bool { return op <= Max }

// Append encodes the answer to a request for op.
func (a *Answer) Append(dst []byte, op Op) []byte {
	dst = putString(append(dst, version), a.Unfit)
	if a.Unfit != "" {
		return dst
	}
	for _, v := range []int64{a.Cost.Series, a.Cost.Samples, a.Cost.SamplesRead, a.Cost.Peak} {
		dst = putUvarint(dst, uint64(v))
	}
	dst = putUvarint(dst, uint64(len(a.Notes)))
	for _, n := range a.Notes {
		dst = putString(putString(putBools(dst, n.Info, false, false), n.Raw), n.Full)
	}
	dst = putUvarint(dst, uint64(len(a.Groups)))
	for _, p := range a.Groups {
		dst = putLabels(putLabels(dst, p.Labels), p.First)
		for _, n := range p.N {
			dst = putUvarint(dst, n)
		}
		for i := range p.V {
			if p.N[i] == 0 {
				continue
			}
			dst = putFloat(dst, p.V[i])
			if op.sums() {
				dst = putFloat(dst, p.C[i])
			}
		}
	}
	return dst
}

// ParseAnswer decodes the answer to a request for op over some steps. It makes no more
// than maxPoints points. The error is ErrMalformed.
func ParseAnswer(b []byte, op Op, steps, maxPoints int) (*Answer, error) {
	d := &decoder{b: b}
	if v := d.byte(); v != version {
		return nil, fmt.Errorf("%w: version %d", ErrMalformed, v)
	}
	a := &Answer{Unfit: d.string()}
	if a.Unfit != "" {
		return a, d.end()
	}
	for _, v := range []*int64{&a.Cost.Series, &a.Cost.Samples, &a.Cost.SamplesRead, &a.Cost.Peak} {
		*v = int64(d.uvarint())
	}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		info, _, _ := d.bools()
		a.Notes = append(a.Notes, Note{info, d.string(), d.string()})
	}
	n := d.uvarint()
	if n > uint64(maxPoints/steps) {
		return nil, fmt.Errorf("%w: %d groups of %d steps", ErrMalformed, n, steps)
	}
	for ; n > 0 && !d.bad; n-- {
		a.Groups = append(a.Groups, d.points(op, steps))
	}
	return a, d.end()
}

func (d *decoder) points(op Op, steps int) *Points {
	p := &Points{Labels: d.labels(), First: d.labels()}
	if len(d.b) < steps {
		d.fail()
		return p
	}
	p.grow(op, steps)
	for i := range p.N {
		p.N[i] = d.uvarint()
	}
	for i := range p.V {
		if p.N[i] == 0 {
			continue
		}
		p.V[i] = d.float()
		if op.sums() {
			p.C[i] = d.float()
		}
	}
	return p
}

// grow makes room for the points.
func (p *Points) grow(op Op, steps int) {
	p.N = make([]uint64, steps)
	if op.values() {
		p.V = make([]float64, steps)
	}
	if op.sums() {
		p.C = make([]float64, steps)
	}
}
