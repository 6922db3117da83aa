package live_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
)

// follower gathers what samples mode gives, over several subscriptions.
type follower struct {
	*live.Subscription
	names map[uint32]string
	seen  map[string]int // series, time and value
	drops []live.Dropped
	errs  []error
}

func (f *follower) join(r *rig, req live.Request) {
	req.Query, req.Samples = `m`, true
	f.Subscription, f.names = r.subscribe(req).Subscription, map[uint32]string{}
}

func (f *follower) poll() (some bool) {
	for _, ev := range f.Poll(nil) {
		some = true
		switch ev.Kind {
		case live.SeriesKind:
			for _, d := range ev.Series {
				f.names[d.ID] = d.Labels.Get("s")
			}
		case live.DataKind:
			if ev.Step.Rev > 0 { // that is of steps
				f.errs = append(f.errs, fmt.Errorf("samples of %d have revision %d", ev.Step.T, ev.Step.Rev))
			}
			for _, v := range ev.Step.Values {
				f.seen[fmt.Sprint(f.names[v.Series], " ", ev.Step.T, " ", v.V)]++
			}
		case live.DroppedKind:
			f.drops = append(f.drops, ev.Dropped)
		case live.ErrorKind:
			f.errs = append(f.errs, ev.Err)
		}
	}
	return some
}

// until polls until ok, which then holds with nothing more to come for now.
func (f *follower) until(r *rig, what string, ok func() bool) {
	r.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if f.poll() {
			continue
		}
		if ok() {
			return
		}
		select {
		case <-r.wake:
		case <-deadline:
			r.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestSamplesResume: a follower that resumes after what it was told to has every sample
// that was applied within the horizon of its time since it began: also the late ones,
// those of a time that it has another sample of, and though one lies far in the future.
func TestSamplesResume(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			const horizon = 5 * time.Second
			r := newRig(t, live.Options{Horizon: horizon})
			other := r.beside()
			defer other.leave()
			f := &follower{seen: map[string]int{}}
			f.join(r, live.Request{})
			at := r
			stored := map[string]bool{}
			n := 0.0
			put := func(late int64) {
				n++
				s, t := fmt.Sprint(rng.IntN(3)), r.clock.Now().UnixMilli()-late
				r.append(gauge(s, t, n))
				for k := range stored { // what it replaces is not stored any more
					if prefix := fmt.Sprint(s, " ", t, " "); len(k) > len(prefix) && k[:len(prefix)] == prefix {
						delete(stored, k)
					}
				}
				stored[fmt.Sprint(s, " ", t, " ", n)] = true
			}
			put(-1e9)
			for round := range 12 {
				for range rng.IntN(20) {
					put(rng.Int64N(horizon.Milliseconds()))
					if rng.IntN(3) == 0 {
						r.clock.Advance(100 * time.Millisecond)
						f.poll()
					}
				}
				if round%2 == 0 {
					f.until(at, "all has come", func() bool { return covers(f.seen, stored) })
				}
				since := f.Since()
				f.Close()
				for range rng.IntN(20) {
					put(rng.Int64N(horizon.Milliseconds()))
					r.clock.Advance(300 * time.Millisecond)
				}
				at = []*rig{r, other}[rng.IntN(2)]
				f.join(at, live.Request{After: since})
				f.until(at, "all has come after the break", func() bool { return covers(f.seen, stored) })
				if now := at.clock.Now().UnixMilli(); f.Since() < now-2000 || f.Since() > now {
					t.Fatalf("at %d it goes on after %d", now, f.Since())
				}
			}
			if len(f.drops)+len(f.errs) > 0 {
				t.Errorf("dropped %v, errors %v", f.drops, f.errs)
			}
		})
	}
}

// TestSamplesHeld: backfills that nobody takes bound what others can have, until they are
// taken or given up.
func TestSamplesHeld(t *testing.T) {
	const stored = 600
	r := newRig(t, live.Options{MaxSamples: 1000})
	for i := range stored {
		r.append(gauge("a", start.UnixMilli()-int64(i)-1, float64(i)))
	}
	witness := &follower{seen: map[string]int{}}
	witness.join(r, live.Request{})
	n := 0
	serve := func() { // lets the evaluation run
		n++
		r.append(gauge("b", start.UnixMilli(), float64(n)))
		witness.until(r, "the witness has it", func() bool { return witness.seen[fmt.Sprint("b ", start.UnixMilli(), " ", n)] > 0 })
	}
	var all []*follower
	for range 3 {
		f := &follower{seen: map[string]int{}}
		f.join(r, live.Request{Backfill: time.Minute})
		f.poll() // it asks
		serve()
		serve()
		all = append(all, f)
	}
	if all[2].poll() {
		t.Fatal("the third has a backlog of its own")
	}
	all[0].Close()
	for _, f := range all[1:] {
		f.until(r, "all has come", func() bool { return len(f.seen) >= stored })
	}
}

// TestSamplesOfTooManySeries: a feed that comes to have too many series tells so, after
// what it could bring.
func TestSamplesOfTooManySeries(t *testing.T) {
	r := newRig(t, live.Options{MaxSeries: 3})
	f := &follower{seen: map[string]int{}}
	f.join(r, live.Request{})
	for i := range 5 {
		r.append(gauge(fmt.Sprint(i), start.UnixMilli(), 1))
	}
	f.until(r, "it is told", func() bool { return len(f.errs) > 0 })
	var limit *model.LimitError
	if !errors.As(f.errs[0], &limit) || limit.What != "series" || len(f.seen) != 3 {
		t.Errorf("%v, after %v", f.errs, f.seen)
	}
}
