package engine

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxDamage  = 256         // damaged blocks that wait for repair
	scrubPause = time.Minute // between passes over all blocks
	scrubBurst = 1 << 20
)

// Damage is a block that was found damaged and is in quarantine.
type Damage struct {
	Shard int
	Block string
	Err   error
}

// scrub verifies the checksums of all blocks, slowly, over and over: damage is to be
// found while another replica still has what it took.
func (db *DB) scrub(ctx context.Context) {
	if db.opts.ScrubRate == 0 {
		return
	}
	limit := rate.NewLimiter(rate.Limit(db.opts.ScrubRate), scrubBurst)
	pace := func(n int) error { return limit.WaitN(ctx, min(n, scrubBurst)) }
	for {
		for i, s := range db.shards {
			if err := s.Scrub(ctx, pace); err != nil && ctx.Err() == nil {
				db.opts.Logger.Error("reading blocks to verify them", "shard", i, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(scrubPause):
		}
	}
}
