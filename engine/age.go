package engine

import (
	"context"
	"sync"
	"time"
)

// Retention removes for good what is too old by a clock, and clocks are set wrong. One that
// leaps is not believed before it has gone on for long enough for somebody to notice: until
// then samples grow old at the pace at which time passes here.
const (
	leap       = 2 * time.Hour  // more than what passes between a recording and the end of a quick restart
	leapWait   = 24 * time.Hour // for which a clock that has leapt must go on, while a server runs
	recordEach = time.Hour
)

// age is the time by which samples grow old, as it is kept over restarts.
type age struct {
	At     int64 `json:"at"`     // believed, in milliseconds since 1970
	Waited int64 `json:"waited"` // milliseconds for which the clock has said something else
}

// ageClock tells the time by which samples grow old. Safe for concurrent use.
type ageClock struct {
	mu struct {
		sync.Mutex
		at       time.Time // believed when seen was
		seen     time.Time // by this node's clock; measures what passes, whatever that is set to
		waited   time.Duration
		waits    bool      // for a clock that has leapt, or for it to come back
		recorded time.Time // by this node's clock
	}
}

// newAgeClock begins with what was recorded, or, without, with what the clock says.
func newAgeClock(recorded *age, seen time.Time) *ageClock {
	c := &ageClock{}
	c.mu.at, c.mu.seen = seen.Round(0), seen
	if recorded != nil {
		c.mu.at, c.mu.waited = time.UnixMilli(recorded.At), time.Duration(recorded.Waited)*time.Millisecond
	}
	return c
}

// judge returns the time to go by when the clocks say something: of one that has leapt and
// what is expected the earlier. It reports too whether that is waited for, whether this is
// news, and what is to be recorded, nil if nothing is.
func (c *ageClock) judge(seen, says time.Time) (at time.Time, waits, news bool, record *age) {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := max(0, seen.Sub(c.mu.seen))
	says = says.Round(0) // by what it shows, not by what has passed
	c.mu.at, c.mu.seen = c.mu.at.Add(passed), seen
	if waits = says.Sub(c.mu.at).Abs() > leap; waits {
		c.mu.waited += passed
		waits = c.mu.waited < leapWait
	}
	if !waits {
		c.mu.at, c.mu.waited = says, 0
	}
	news, c.mu.waits = waits != c.mu.waits, waits
	if news || seen.Sub(c.mu.recorded) >= recordEach {
		c.mu.recorded = seen
		record = &age{At: c.mu.at.UnixMilli(), Waited: c.mu.waited.Milliseconds()}
	}
	return earlier(c.mu.at, says), waits, news, record
}

// now returns the time to go by when this node's clock shows seen.
func (c *ageClock) now(seen time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return earlier(c.mu.at.Add(seen.Sub(c.mu.seen)), seen.Round(0))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// upkeepTime returns the time by which upkeep is proposed, and records it.
func (db *DB) upkeepTime(ctx context.Context) (time.Time, error) {
	seen := db.opts.Clock.Now()
	says := db.committer.Time(ctx, seen)
	at, waits, news, record := db.ages.judge(seen, says)
	log := db.opts.Logger.With("clock", says.UTC(), "retention_goes_by", at.UTC())
	switch {
	case news && waits:
		log.Warn("the clock is far from where it was, plus the time that has passed here: retention goes by the earlier, until the clock has gone on for a day")
	case news:
		log.Info("retention goes by the clock again")
	}
	if record == nil || db.writable() != nil { // an hour more or less is nothing to a disk that is full
		return at, nil
	}
	return at, db.meta.recordAge(record)
}
