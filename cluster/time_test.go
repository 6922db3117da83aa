package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// TestClocksAside: of three nodes one's clock is an hour ahead and one's an hour behind. Writes
// and reads go on, and of each shard that is removed which is too old by the third's clock.
func TestClocksAside(t *testing.T) {
	c := emptyTrio(t, Options{}, nil)
	now := time.Date(2026, 1, 2, 12, 30, 0, 0, time.UTC) // between the hours at which is cut
	clocks := map[string]*clock.Manual{
		"n1": clock.NewManual(now.Add(time.Hour)), "n2": clock.NewManual(now), "n3": clock.NewManual(now.Add(-time.Hour))}
	c.engine = func(name string, o *engine.Options) { o.Clock, o.Retention = clocks[name], 2*time.Hour }
	c.startAll()
	ago := func(minutes int64) int64 { return now.Unix() - 60*minutes }
	c.mustWrite("n2", ago(100), 10) // what n1 takes for too old
	c.mustWrite("n1", ago(0), 10)
	c.mustWrite("n3", ago(1), 10)
	for name := range clocks {
		c.leads(name, true)
	}
	c.upkeep()
	c.checkAll()

	for _, m := range clocks {
		m.Advance(time.Hour)
	}
	c.await("what is too old is gone", func() error { // a shard may change its leader meanwhile
		if c.upkeep(); c.holds(ago(100)*1000, ago(95)*1000) {
			return errors.New("it is there")
		}
		return nil
	})
}

// upkeep has all nodes propose what is due in the shards that they lead.
func (c *trio) upkeep() {
	c.t.Helper()
	for _, m := range c.nodes {
		if err := m.db.Maintain(context.Background()); err != nil {
			c.t.Fatal(err)
		}
	}
}

// holds tells whether any node has samples of a time.
func (c *trio) holds(from, to int64) bool {
	c.t.Helper()
	some := false
	for _, m := range c.nodes {
		ctx, _, err := m.node.Sync(c.t.Context(), Wanted{Level: Linearizable, Held: true})
		if err != nil {
			c.t.Fatal(err)
		}
		sel, err := model.Select(ctx, m.node.Reader(), &model.SelectRequest{MinT: from, MaxT: to})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, x := range sel.Series {
			var cols model.Columns
			if err := x.Read(&cols); err != nil {
				c.t.Fatal(err)
			}
			some = some || len(cols.T) > 0 && cols.T[0] <= to
		}
		sel.Close()
	}
	return some
}
