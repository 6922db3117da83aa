package partial

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// Merge joins the answers to a request. The groups come in the order of their first
// series, with the results in V and at each step N of 0 if there is none. It takes over
// the answers' memory. What comes out may be unfit where no answer is.
func Merge(r *Request, answers []*Answer) *Answer {
	out := &Answer{}
	groups := map[string]*Points{}
	var buf []byte
	notes := map[Note]string{} // the full text, by the rest
	for _, a := range answers {
		if a.Unfit != "" {
			return a
		}
		out.Cost.Add(a.Cost)
		for _, n := range a.Notes {
			key := Note{Info: n.Info, Raw: n.Raw}
			if full, ok := notes[key]; ok && full != n.Full {
				return &Answer{Unfit: unfitNotes}
			} else if !ok {
				notes[key] = n.Full
				out.Notes = append(out.Notes, n)
			}
		}
		for _, p := range a.Groups {
			buf = p.Labels.Bytes(buf)
			to := groups[string(buf)]
			if to == nil {
				groups[string(buf)] = p
				out.Groups = append(out.Groups, p)
			} else if why := to.join(r.Op, p); why != "" {
				return &Answer{Unfit: why}
			}
		}
	}
	for _, p := range out.Groups {
		if why := p.finish(r.Op); why != "" {
			return &Answer{Unfit: why}
		}
	}
	slices.SortStableFunc(out.Groups, func(a, b *Points) int { return labels.Compare(a.First, b.First) })
	return out
}

// join adds what another node has of the group, and returns why it can't.
func (p *Points) join(op Op, o *Points) (unfit string) {
	if labels.Compare(o.First, p.First) < 0 {
		p.First = o.First
	}
	for i, n := range o.N {
		if n == 0 {
			continue
		}
		switch {
		case !op.values():
		case p.N[i] == 0:
			p.V[i] = o.V[i]
			if op.sums() {
				p.C[i] = o.C[i]
			}
		case op.sums():
			p.add(i, o.V[i], o.C[i])
		default:
			a, b := p.V[i], o.V[i]
			if (a == b || math.IsNaN(a) && math.IsNaN(b)) && math.Float64bits(a) != math.Float64bits(b) {
				return unfitTie
			}
			if op == Min && a > b || op == Max && a < b || math.IsNaN(a) {
				p.V[i] = b
			}
		}
		p.count(op, i, n)
	}
	return ""
}

// finish puts the results in V.
func (p *Points) finish(op Op) (unfit string) {
	if !op.values() {
		p.V = make([]float64, len(p.N))
	}
	for i, n := range p.N {
		switch {
		case n == 0:
			continue
		case op == Sum:
			p.V[i] += p.C[i]
		case op == Avg:
			p.V[i] = p.V[i]/float64(n) + p.C[i]/float64(n)
		case op == Count:
			p.V[i] = float64(n)
		case op == Group:
			p.V[i] = 1
		}
		if value.IsStaleNaN(p.V[i]) { // stands for no value in what becomes of it
			return unfitTie
		}
	}
	return ""
}
