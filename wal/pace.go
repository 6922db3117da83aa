package wal

import "time"

// paceBurst is how many syncs may come at once after a rest.
const paceBurst = 32

// pacer says when the next sync may begin: a bucket of tokens, one a sync, that fills at
// one a pace. While writes come now and then nobody waits. When they come without end,
// from appenders that know nothing of each other, the wait lets them share a sync.
// For one goroutine at a time.
type pacer struct {
	tokens float64
	last   time.Time
}

// take uses up one token and returns how long to wait for it.
func (p *pacer) take(now time.Time, pace time.Duration) time.Duration {
	if p.last.IsZero() {
		p.tokens = paceBurst
	} else if d := now.Sub(p.last); d > 0 {
		p.tokens = min(paceBurst, p.tokens+float64(d)/float64(pace))
	}
	p.last = now
	p.tokens--
	if p.tokens >= 0 {
		return 0
	}
	return time.Duration(-p.tokens * float64(pace))
}
