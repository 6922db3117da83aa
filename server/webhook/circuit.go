package webhook

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Circuit is what is known of one target: scheme, host and port.
type Circuit struct {
	Target    string    `json:"target"`
	State     string    `json:"state"` // closed, open or half-open
	Since     time.Time `json:"since,omitzero"`
	Failures  int       `json:"consecutiveFailures"`
	Delivered uint64    `json:"delivered"`
	Failed    uint64    `json:"failed"` // attempts
	LastError string    `json:"lastError,omitempty"`
}

// circuit guards one target.
type circuit struct {
	target  string
	breaker *gobreaker.CircuitBreaker[struct{}]
	openFor time.Duration
	log     *slog.Logger
	mu      struct {
		sync.Mutex
		since             time.Time
		moves             []string // not logged yet
		delivered, failed uint64
		last              error
	}
}

func newCircuit(target string, o *Options) *circuit {
	c := &circuit{target: target, openFor: o.OpenFor, log: o.Logger.With("target", target)}
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
		c.mu.last = nil
	case !errors.Is(err, errStopped):
		c.mu.failed++
		c.mu.last = err
	}
	moves, c.mu.moves = c.mu.moves, nil
	return moves
}

// reopens returns how long the circuit will let nothing through.
func (c *circuit) reopens() time.Duration {
	if c.breaker.State() != gobreaker.StateOpen {
		return c.openFor / 10 // another's attempt is on its way
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(time.Until(c.mu.since.Add(c.openFor)), 0) + time.Millisecond
}

func (c *circuit) show() Circuit {
	state, failures := c.breaker.State().String(), int(c.breaker.Counts().ConsecutiveFailures)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Circuit{Target: c.target, State: state, Since: c.mu.since, Failures: failures, Delivered: c.mu.delivered, Failed: c.mu.failed}
	if c.mu.last != nil {
		s.LastError = c.mu.last.Error()
	}
	return s
}

// circuits are all targets that were met since the start.
type circuits struct {
	o  *Options
	mu struct {
		sync.Mutex
		by map[string]*circuit
	}
}

// maxCircuits bounds the targets that are remembered; closed ones go first.
const maxCircuits = 4096

func (cs *circuits) of(target string) *circuit {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.mu.by[target]
	if c != nil {
		return c
	}
	if len(cs.mu.by) >= maxCircuits {
		for k, old := range cs.mu.by {
			if old.breaker.State() == gobreaker.StateClosed {
				delete(cs.mu.by, k)
			}
		}
	}
	c = newCircuit(target, cs.o)
	cs.mu.by[target] = c
	return c
}

func (cs *circuits) list() []Circuit {
	cs.mu.Lock()
	all := make([]*circuit, 0, len(cs.mu.by))
	for _, c := range cs.mu.by {
		all = append(all, c)
	}
	cs.mu.Unlock()
	list := make([]Circuit, 0, len(all))
	for _, c := range all {
		list = append(list, c.show())
	}
	slices.SortFunc(list, func(a, b Circuit) int { return strings.Compare(a.Target, b.Target) })
	return list
}
