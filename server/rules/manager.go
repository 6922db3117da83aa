package rules

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Manager evaluates groups of rules. It is safe for concurrent use.
type Manager struct {
	o       *Options
	metrics *metrics
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
	changed chan struct{} // the wanted groups are others than those at work
	mu      struct {
		sync.Mutex
		wanted []GroupSpec
		groups map[string]*running // by key: those that work, or would if this node led
	}
	first bool // no group has worked yet; control's alone
}

// running is a group with the way to end its goroutine.
type running struct {
	*group
	stop func() // ends it and waits; nil: it does not work
}

// New returns a Manager without groups; Set gives it some.
func New(o *Options) (*Manager, error) {
	opts := Options{}
	if o != nil {
		opts = *o
	}
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	m := &Manager{o: &opts, changed: make(chan struct{}, 1), first: true}
	var err error
	if m.metrics, err = newMetrics(opts.Registerer); err != nil {
		return nil, err
	}
	m.mu.groups = map[string]*running{}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.done.Go(m.control)
	return m, nil
}

// Set replaces the groups. Those that are as before go on undisturbed; a changed one takes
// over the state of its rules. It does not wait for that.
func (m *Manager) Set(groups []GroupSpec) {
	m.mu.Lock()
	m.mu.wanted = slices.Clone(groups)
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Close ends all evaluation and waits. No stale markers are written: another run will go on.
func (m *Manager) Close() error {
	m.cancel()
	m.done.Wait()
	return nil
}

// control is the one that starts and stops groups.
func (m *Manager) control() {
	var lead <-chan struct{}
	if m.o.Leadership != nil {
		lead = m.o.Leadership.Changed()
	}
	for {
		leads := m.evaluates()
		m.metrics.leads.Set(0)
		if leads {
			m.metrics.leads.Set(1)
		}
		m.arrange(leads)
		select {
		case <-m.ctx.Done():
			m.arrange(false)
			return
		case <-m.changed:
		case <-lead:
		}
	}
}

// arrange makes the groups at work those that are wanted, or none.
func (m *Manager) arrange(leads bool) {
	m.mu.Lock()
	wanted, old := m.mu.wanted, m.mu.groups
	m.mu.Unlock()
	now := make(map[string]*running, len(wanted))
	var gone []*running
	started := false
	for i := range wanted {
		s := &wanted[i]
		was := old[s.Key()]
		if was != nil && was.spec.equal(s) && (was.stop != nil) == leads {
			now[s.Key()] = was
			continue
		}
		started = started || leads
		now[s.Key()] = m.replace(s, was, leads)
	}
	for key, r := range old {
		if now[key] == nil {
			r.end()
			m.metrics.remove(key)
			gone = append(gone, r)
		}
	}
	m.mu.Lock()
	m.mu.groups = now
	m.mu.Unlock()
	if started {
		m.first = false
	}
	if !leads {
		m.first = true // whoever led meanwhile knows more than we do
		return
	}
	m.retire(gone)
}

// replace starts a group in place of was, which may be nil.
func (m *Manager) replace(s *GroupSpec, was *running, leads bool) *running {
	if was != nil {
		was.end()
	}
	m.metrics.add(s)
	r := &running{group: newGroup(s, m.o, m.metrics)}
	if was != nil && was.stop != nil && leads {
		r.inherit(was.group)
	}
	if !leads {
		return r
	}
	ctx, cancel := context.WithCancel(m.ctx)
	done := make(chan struct{})
	restore := m.first
	go func() { defer close(done); r.run(ctx, restore) }()
	r.stop = func() { cancel(); <-done }
	return r
}

func (r *running) end() {
	if r.stop != nil {
		r.stop()
	}
}

// retire marks the series of groups that are no more as stale at their end, unless
// another rule, perhaps the same under a new name, has written them since: it is
// given two intervals to do so.
func (m *Manager) retire(gone []*running) {
	end := m.o.Clock.Now()
	for _, r := range gone {
		series := slices.Clone(r.stale)
		for _, x := range r.rules {
			series = append(series, x.series()...)
		}
		if len(series) == 0 || r.stop == nil {
			continue
		}
		m.done.Go(func() {
			if !r.wait(m.ctx, end.Add(2*r.spec.Interval)) {
				return
			}
			t := end.Add(-r.spec.Offset).UnixMilli()
			series := slices.DeleteFunc(series, func(ls labels.Labels) bool { return m.writtenSince(ls, t) })
			if err := mark(m.ctx, m.o.Appender, series, t); err != nil {
				r.log.Warn("stale markers of a former group were not stored", "err", err)
			}
		})
	}
}

// writtenSince reports whether a series has samples after t; a failure counts as yes.
func (m *Manager) writtenSince(ls labels.Labels, t int64) bool {
	q, err := m.o.Queryable.Querier(t+1, m.o.Clock.Now().UnixMilli())
	if err != nil {
		return true
	}
	defer q.Close()
	var ms []*labels.Matcher
	ls.Range(func(l labels.Label) {
		ms = append(ms, &labels.Matcher{Type: labels.MatchEqual, Name: l.Name, Value: l.Value})
	})
	set := q.Select(m.ctx, false, nil, ms...)
	for set.Next() {
		if labels.Equal(set.At().Labels(), ls) && set.At().Iterator(nil).Next() != chunkenc.ValNone {
			return true
		}
	}
	return set.Err() != nil
}

// evaluates reports whether this node is the one that evaluates.
func (m *Manager) evaluates() bool { return m.o.Leadership == nil || m.o.Leadership.Leads() }

// list returns the groups sorted by file and name.
func (m *Manager) list() []*group {
	m.mu.Lock()
	defer m.mu.Unlock()
	groups := make([]*group, 0, len(m.mu.groups))
	for _, r := range m.mu.groups {
		groups = append(groups, r.group)
	}
	slices.SortFunc(groups, func(a, b *group) int {
		if c := strings.Compare(a.spec.File, b.spec.File); c != 0 {
			return c
		}
		return strings.Compare(a.spec.Name, b.spec.Name)
	})
	return groups
}
