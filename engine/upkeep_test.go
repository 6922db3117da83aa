package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
	"github.com/strandline-db/strandline/wal/vfs"
)

// refusing is a Committer that commits nothing.
type refusing struct {
	Committer
	err   error
	asked int
}

func (r *refusing) Commit(context.Context, []Op) error { r.asked++; return r.err }
func (*refusing) Flush(context.Context, int) error     { return nil }
func (*refusing) Leads(int) bool                       { return true }
func (*refusing) Close() error                         { return nil }

func (*refusing) Time(_ context.Context, now time.Time) time.Time { return now }

// TestUpkeepRefused: what a committer says of a retention cut, be it that the node it went to
// has failed, is no failure of this engine, which asks again the next time.
func TestUpkeepRefused(t *testing.T) {
	for _, refusal := range []error{model.ErrOverloaded, model.ErrReadOnly, fmt.Errorf("%w (from another node)", model.ErrFailed), errors.New("of another kind")} {
		c := &refusing{err: refusal}
		db, err := Open("data", &Options{FS: vfs.NewMem(), Clock: clock.NewManual(start), Shards: 1, Retention: time.Hour,
			Replicate: func(*Replicas) (Committer, error) { return c, nil }})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := db.Maintain(t.Context()); err != nil {
				t.Errorf("upkeep that was refused (%v): %v", refusal, err)
			}
		}
		if c.asked != 2 {
			t.Errorf("asked %d times", c.asked)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
