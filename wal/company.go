package wal

import "time"

const (
	companyGain = 1.0 / 8 // how fast it is learnt, and forgotten, that a stream comes along
	companySure = 0.6     // from here on a stream is waited for
)

// company learns which streams are written at about the same time, so that a write can
// wait a moment for those that are about to come, and all share one fsync. A replica's
// groups are such streams: one request makes an entry in many of them, which their leaders
// send at slightly different times. A turn begins with the first entry after the last turn
// has ended and lasts as long as a write may wait. Under the log's lock.
type company struct {
	longest time.Duration // of a turn; 0: nobody waits
	turn    uint64
	began   time.Time
	streams map[StreamID]*companion
	absent  int           // streams that are sure to come in this turn and have not yet
	whole   chan struct{} // closed when none is absent
}

// companion is what is known of one stream.
type companion struct {
	often float64 // in which share of the turns it came lately
	turn  uint64  // in which it came last
}

// join notes that an entry of a stream has its place in the log.
func (c *company) join(s StreamID, now time.Time) {
	if c.longest == 0 {
		return
	}
	if now.Sub(c.began) > c.longest {
		c.next(now)
	}
	x := c.streams[s]
	if x == nil {
		x = &companion{}
		c.streams[s] = x
	}
	if x.turn == c.turn {
		return
	}
	x.turn = c.turn
	if x.often >= companySure {
		if c.absent--; c.absent == 0 {
			close(c.whole)
		}
	}
}

// next ends a turn and begins another.
func (c *company) next(now time.Time) {
	if c.streams == nil {
		c.streams = map[StreamID]*companion{}
	}
	c.absent = 0
	for s, x := range c.streams {
		came := 0.0
		if x.turn == c.turn {
			came = 1
		}
		if x.often += (came - x.often) * companyGain; x.often >= companySure {
			c.absent++
		} else if x.often < 1e-3 {
			delete(c.streams, s) // long gone
		}
	}
	c.turn++
	c.began, c.whole = now, make(chan struct{})
}

// rest returns what a write has to wait for: the channel closes when every stream that is
// sure to come has come; 0: there is nothing to wait for.
func (c *company) rest(now time.Time) (<-chan struct{}, time.Duration) {
	if c.absent == 0 {
		return nil, 0
	}
	return c.whole, c.longest - now.Sub(c.began)
}
