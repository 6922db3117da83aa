package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// corrections is a series of which one client writes each sample several times, with rising
// values, each at any node and once the write before it is acknowledged. After a write that was
// not, it goes on to the next sample: that write may still be stored, whenever that is.
type corrections struct {
	name string
	mu   struct {
		sync.Mutex
		samples []corrected // by their time
		acked   int         // writes
	}
}

// corrected is what is known of a sample's value. One below least was undone.
type corrected struct {
	least float64 // acknowledged, or seen by a linearizable read; 0: the sample may be missing
	most  float64 // sent
}

func (c *corrections) known() []corrected {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mu.samples)
}

// next returns the next value of the last sample, or the first of a new one.
func (c *corrections) next(fresh bool) *model.Batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fresh {
		c.mu.samples = append(c.mu.samples, corrected{})
	}
	t := len(c.mu.samples) - 1
	c.mu.samples[t].most++
	key := model.AppendKey(nil, labels.FromStrings("__name__", c.name))
	return &model.Batch{Series: []model.BatchSeries{{Key: key, To: 1}}, T: []int64{int64(t)}, V: []float64{c.mu.samples[t].most}}
}

func (c *corrections) acknowledged(b *model.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.samples[b.T[0]].least = b.V[0]
	c.mu.acked++
}

// check judges a linearizable read by what was known before it began, and learns from it.
func (c *corrections) check(before []corrected, got map[int64]float64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t, v := range got {
		if t >= int64(len(c.mu.samples)) || v > c.mu.samples[t].most {
			return fmt.Errorf("phantom: %s at %d is %v", c.name, t, v)
		}
		x := &c.mu.samples[t]
		x.least = max(x.least, v)
	}
	for t, x := range before {
		if v := got[int64(t)]; v < x.least {
			return fmt.Errorf("undone: %s at %d was %v and is %v", c.name, t, x.least, v)
		}
	}
	return nil
}

// correct writes and reads a series until the faults end.
func (s *sim) correct(c *corrections, rng *rand.Rand) {
	for fresh := true; s.ctx.Err() == nil; s.sleep(time.Duration(rng.IntN(300)) * time.Millisecond) {
		r := s.anyUp(rng)
		switch {
		case r == nil:
		case rng.IntN(3) == 0:
			_ = s.readCorrections(c, r) // what fails is asked again
		default:
			b := c.next(fresh)
			if fresh = !r.write(b); !fresh {
				c.acknowledged(b)
				fresh = rng.IntN(4) == 0
			}
		}
	}
}

// readCorrections reads a series at a node; the error is why it could not.
func (s *sim) readCorrections(c *corrections, r *simRun) error {
	ctx, cancel := context.WithTimeout(r.ctx, simPatient)
	defer cancel()
	before := c.known()
	ctx, _, err := r.node.Sync(ctx, Wanted{Level: Linearizable})
	if err != nil {
		return err
	}
	got := map[int64]float64{}
	err = r.read(ctx, c.name, func(_ labels.Labels, cols *model.Columns) {
		for i, t := range cols.T {
			got[t] = cols.V[i]
		}
	})
	if err != nil || r.ghost.Load() {
		return err
	}
	if err := c.check(before, got); err != nil {
		s.t.Errorf("%s, read at %v: %v", r.proc.addr, time.Since(s.trace.began), err)
	}
	return nil
}
