package shard

import (
	"context"
	"fmt"
	"math"
)

// Wipe makes the shard empty, as it was when it was made, and deletes its files. What
// reads from them goes on until it is done. The caller resets the log. Idempotent.
func (s *Shard) Wipe(ctx context.Context) error {
	if err := s.maintain.take(ctx); err != nil {
		return err
	}
	defer s.maintain.give()
	if s.failed != nil {
		return s.failed
	}
	next := Manifest{Shard: s.opts.ID, Term: 1, Cut: math.MinInt64, NextNo: 1}
	removed := map[string]bool{}
	for _, b := range s.manifest.Blocks {
		removed[b.Name] = true
	}
	if err := s.commit(&next, nil, removed, func() { s.head.setLocked(&next, nil) }); err != nil {
		s.failed = fmt.Errorf("shard %d: wipe: %w", s.opts.ID, err)
		return s.failed
	}
	return s.dropFetched() // by an install that broke off
}
