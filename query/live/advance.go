package live

import (
	"context"
	"errors"
	"time"

	"github.com/strandline-db/strandline/query"
)

// catchUp is how many steps are evaluated at once, at most.
const catchUp = 64

// patient is how many evaluations in a row may take longer than their steps are apart, and
// patience by how many milliseconds they may then be behind, before steps are skipped:
// several at once may well cost no more than one, and what is slow for a while, since the
// machine has other work, need not be slow.
const patient, patience = 3, 5000

// pace is how an evaluation keeps up with the time.
type pace struct {
	chunk int64 // steps that are evaluated at once, at most
	slow  int   // evaluations in a row that took a quarter longer than their steps are apart, or more
	skips bool  // since it was both slow and late
	told  int64 // the newest step that was due when an error was told
}

// took notes how long n steps, in milliseconds apart, have taken.
func (p *pace) took(d time.Duration, n, step int64) {
	if 4*d.Milliseconds() > 5*n*step {
		p.slow++
	} else {
		p.slow = 0
	}
}

// passing tells whether an error says nothing of the query.
func passing(err error) bool {
	kind := query.KindOf(err)
	return kind == query.Unavailable || kind == query.Timeout
}

// advance evaluates the steps that are due, up to newest, or some of them. A step is
// skipped, and told as dropped, if there are more than the ring holds, or if the evaluation
// can't keep up. err is why nothing can be evaluated. held: that will pass, and the steps
// wait for it.
func (e *evaluation) advance(ctx context.Context, newest int64, err error) (held bool) {
	step, p := e.key.step, &e.pace
	behind, most := (newest-e.next)/step+1, e.room()
	if p.skips = p.slow >= patient && (p.skips || newest-e.next > patience); p.skips {
		most = 1
	}
	if behind > most {
		from := e.next
		e.next = newest - (most-1)*step
		e.publish(entry{dropped: Dropped{Count: behind - most, From: from, To: e.next - step}}, e.next-step)
	}
	to := min(newest, e.next+(p.chunk-1)*step)
	var steps []*Step
	if err == nil {
		began := e.hub.opts.Clock.Now()
		if steps, err = e.src.steps(ctx, e.next, to); err == nil {
			p.took(e.hub.opts.Clock.Now().Sub(began), (to-e.next)/step+1, step)
		}
	}
	if ctx.Err() != nil {
		return false // the hub closes
	}
	for _, s := range steps {
		e.publishStep(s)
		e.next = s.T + step
	}
	switch {
	case err == nil:
		p.chunk = min(2*p.chunk, catchUp)
	case errors.Is(err, errHeavy):
	case passing(err):
		p.chunk = max(p.chunk/4, 1)
		quiet := int64(0)
		if errors.Is(err, errDeaf) { // another leader is elected in less
			quiet = patience
		}
		if newest-max(p.told, e.next-step) > quiet {
			p.told = newest
			e.publish(entry{err: kindOf(err), t: newest, held: true}, e.next-step)
		}
		return true
	default: // those that follow may fail too
		p.chunk = 1
		e.publish(entry{err: kindOf(err), t: e.next}, e.next)
		e.next += step
	}
	return false
}

// room is how many steps the ring holds.
func (e *evaluation) room() int64 {
	r := &e.mu.ring
	n := int64(r.maxEvents)
	if r.values > 0 {
		perStep := int64(r.values) / int64(r.head-r.tail)
		n = min(n, int64(r.maxValues)/max(perStep, 1))
	}
	return max(n, catchUp)
}

// publishStep publishes a step's first revision.
func (e *evaluation) publishStep(s *Step) {
	en := entry{step: s, t: s.T}
	en.stale = ended(e.newest, s)
	e.newest = s
	e.publish(en, s.T)
}
