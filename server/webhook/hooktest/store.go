package hooktest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/strandline-db/strandline/shard/model"
)

// Store keeps records in memory, as engine.DB does durably.
type Store struct {
	mu struct {
		sync.Mutex
		rev      uint64
		records  map[string]model.Record
		watchers map[chan struct{}]string
		fail     func(*model.RecordChange) error
	}
}

// NewStore returns an empty store.
func NewStore() *Store {
	s := &Store{}
	s.mu.records = map[string]model.Record{}
	s.mu.watchers = map[chan struct{}]string{}
	return s
}

// Fail makes f judge each change before it is made; nil: none fails.
func (s *Store) Fail(f func(*model.RecordChange) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.fail = f
}

// ChangeRecords makes all changes or, if a guard does not hold, none.
func (s *Store) ChangeRecords(ctx context.Context, c *model.RecordChange) error {
	if err := errorsOf(ctx, c); err != nil {
		return err
	}
	s.mu.Lock()
	fail := s.mu.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(c); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range c.Guards {
		if s.mu.records[g.Key].Rev != g.Rev {
			return fmt.Errorf("%w: %q", model.ErrConflict, g.Key)
		}
	}
	s.mu.rev++
	for _, x := range c.Changes {
		if x.Delete {
			delete(s.mu.records, x.Key)
		} else {
			s.mu.records[x.Key] = model.Record{Key: x.Key, Value: slices.Clone(x.Value), Rev: s.mu.rev}
		}
		for ch, prefix := range s.mu.watchers {
			if strings.HasPrefix(x.Key, prefix) {
				select {
				case ch <- struct{}{}:
				default:
				}
			}
		}
	}
	return nil
}

func errorsOf(ctx context.Context, c *model.RecordChange) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.Validate()
}

// Records returns those whose key has the prefix, sorted by key.
func (s *Store) Records(prefix string) []model.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []model.Record
	for key, r := range s.mu.records {
		if strings.HasPrefix(key, prefix) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b model.Record) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// WatchRecords tells of changes below a prefix.
func (s *Store) WatchRecords(prefix string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.watchers[ch] = prefix
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.mu.watchers, ch)
	}
}
