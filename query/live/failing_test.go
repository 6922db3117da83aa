package live_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/strandline-db/strandline/query/live"
)

// TestOneFails: of steps that are evaluated together those that fail are told as failed, and no
// other, whether they are corrected or of a backfill.
func TestOneFails(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1})
	const query = `label_replace(m, "s", "", "s", ".*")` // fails for two series
	at := func(i int64) int64 { return start.UnixMilli() + i*1000 }
	r.append(gauge("a", at(0), 1))
	c := r.subscribe(live.Request{Query: query})
	for i := range int64(8) {
		r.clock.Advance(time.Second)
		c.until(at(i + 1))
	}
	r.append(gauge("a", at(2), 2))
	r.append(gauge("b", at(5), 1))
	r.clock.Advance(time.Second)
	c.until(at(9))
	other := r.beside()
	defer other.leave()
	late := other.subscribe(live.Request{Query: query, Backfill: 8 * time.Second})
	late.strict = false
	late.until(at(9))
	for i := int64(1); i < 5; i++ {
		c.check(at(i))
		late.check(at(i))
	}
	if c.errs != 5 || late.errs != 1 || fmt.Sprint(late.drops) != fmt.Sprint([]live.Dropped{{Count: 5, From: at(5), To: at(9)}}) {
		t.Errorf("%d failures were told, and %d of the backfill, of which was dropped: %v", c.errs, late.errs, late.drops)
	}
}
