package webhook

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Circuit is what is known of one target, a URL. It shows scheme, host and port alone, since
// the rest may be a secret, and whose target it is.
type Circuit struct {
	Target        string    `json:"target"`
	Subscriptions []string  `json:"subscriptions"`
	State         string    `json:"state"` // closed, open or half-open
	Since         time.Time `json:"since,omitzero"`
	Failures      int       `json:"consecutiveFailures"`
	Delivered     uint64    `json:"delivered"`
	Failed        uint64    `json:"failed"` // attempts
	LastError     string    `json:"lastError,omitempty"`
}

// circuit guards one target.
type circuit struct {
	target  string // what may be shown
	breaker *gobreaker.CircuitBreaker[struct{}]
	openFor time.Duration
	log     *slog.Logger
	mu      struct {
		sync.Mutex
		since             time.Time
		moves             []string // not logged yet
		delivered, failed uint64
		failures          int // in a row; the breaker forgets them when it opens
		last              error
		subs              map[string]struct{} // that have come here
	}
}

func newCircuit(target string, o *Options) *circuit {
	c := &circuit{target: target, openFor: o.OpenFor, log: o.Logger.With("target", target)}
	c.mu.subs = map[string]struct{}{}
	c.mu.since = time.Now()
	c.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: target, MaxRequests: 1, Timeout: o.OpenFor,
		ReadyToTrip: func(n gobreaker.Counts) bool { return int(n.ConsecutiveFailures) >= o.Trip },
		IsExcluded:  func(err error) bool { return errors.Is(err, errStopped) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.mu.since = time.Now()
			c.mu.moves = append(c.mu.moves, from.String()+" to "+to.String())
		},
	})
	return c
}

// errStopped: the dispatcher was stopped during an attempt, which says nothing of the target.
var errStopped = errors.New("stopped")

// errOpen: the circuit lets nothing through for now.
var errOpen = errors.New("circuit is open")

// try makes an attempt, if the circuit lets it: errOpen if not.
func (c *circuit) try(ctx context.Context, attempt func() error) error {
	_, err := c.breaker.Execute(func() (struct{}, error) {
		err := attempt()
		if err != nil && ctx.Err() != nil {
			err = errStopped
		}
		return struct{}{}, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return errOpen
	}
	for _, move := range c.count(err) {
		c.log.Info("webhook circuit", "from", move)
	}
	return err
}

// count notes an attempt, and returns how the state has changed since the last one.
func (c *circuit) count(err error) (moves []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.mu.delivered++
		c.mu.last, c.mu.failures = nil, 0
	case !errors.Is(err, errStopped):
		c.mu.failed++
		c.mu.failures++
		c.mu.last = err
	}
	moves, c.mu.moves = c.mu.moves, nil
	return moves
}

// failing reports whether the last attempt has failed.
func (c *circuit) failing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.failures > 0
}

// behind is by how much later than others a message comes to the trial for each failure
// that it has had: what the target refuses for itself does not take the trial from the rest.
const behind = 50 * time.Millisecond

// reopens returns how long a message that has failed so many times is to wait, since the
// circuit lets nothing through.
func (c *circuit) reopens(failed int) time.Duration {
	if c.breaker.State() != gobreaker.StateOpen {
		return c.openFor / 10 // another's attempt is on its way
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(time.Until(c.mu.since.Add(c.openFor)), 0) + time.Millisecond + time.Duration(min(failed, 20))*behind
}

func (c *circuit) show() Circuit {
	state := c.breaker.State().String()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Circuit{Target: c.target, Subscriptions: slices.Sorted(maps.Keys(c.mu.subs)), State: state, Since: c.mu.since,
		Failures: c.mu.failures, Delivered: c.mu.delivered, Failed: c.mu.failed}
	if c.mu.last != nil {
		s.LastError = c.mu.last.Error()
	}
	return s
}

// circuits are the targets that were met since the start, one for each URL: what a path
// answers says nothing of its neighbours.
type circuits struct {
	o  *Options
	mu struct {
		sync.Mutex
		by    map[string]*circuit // by URL
		sweep int                 // at how many those are looked for that nobody needs any more
	}
}

// leastSweep is from how many circuits on the unneeded are looked for.
const leastSweep = 64

// of returns the circuit of a subscription's target.
func (cs *circuits) of(t *Target, origin, sub string) *circuit {
	cs.mu.Lock()
	crowded := len(cs.mu.by) >= max(cs.mu.sweep, leastSweep)
	cs.mu.Unlock()
	if crowded {
		cs.forget()
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.mu.by[t.URL]
	if c == nil {
		c = newCircuit(origin, cs.o)
		cs.mu.by[t.URL] = c
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.subs[sub] = struct{}{}
	return c
}

// forget drops the circuits that are no subscription's target any more.
func (cs *circuits) forget() {
	cs.mu.Lock()
	all := maps.Clone(cs.mu.by)
	cs.mu.Unlock()
	for url, c := range all {
		c.mu.Lock()
		subs := slices.Collect(maps.Keys(c.mu.subs))
		c.mu.Unlock()
		for _, sub := range subs {
			if t, ok := cs.o.Targets.Target(sub); ok && t.URL == url {
				continue
			}
			c.mu.Lock()
			delete(c.mu.subs, sub)
			c.mu.Unlock()
		}
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for url, c := range all {
		c.mu.Lock()
		if len(c.mu.subs) == 0 {
			delete(cs.mu.by, url)
		}
		c.mu.Unlock()
	}
	cs.mu.sweep = 2 * len(cs.mu.by)
}

func (cs *circuits) list() []Circuit {
	cs.forget()
	cs.mu.Lock()
	all := slices.Collect(maps.Values(cs.mu.by))
	cs.mu.Unlock()
	list := make([]Circuit, 0, len(all))
	for _, c := range all {
		list = append(list, c.show())
	}
	slices.SortFunc(list, func(a, b Circuit) int {
		return cmp.Or(strings.Compare(a.Target, b.Target), slices.Compare(a.Subscriptions, b.Subscriptions))
	})
	return list
}
