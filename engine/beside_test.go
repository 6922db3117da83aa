package engine

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// TestFlushBesideMerge: while a shard merges blocks, which may take hours, the others are
// flushed when it is time; the shard itself is after the merge at hand, before the next one.
func TestFlushBesideMerge(t *testing.T) {
	const week = 7 * 24 * time.Hour
	merging, goOn := make(chan struct{}), make(chan struct{})
	var first sync.Once
	o := Options{Shards: 2, Retention: -1, FlushInterval: 2 * time.Hour}
	o.Failpoint = func(name string) {
		if name == "merge-start" {
			first.Do(func() { close(merging); <-goOn })
		}
	}
	f := newFixture(t, o)
	f.stop() // its own upkeep
	f.wg.Wait()
	put := func(at int64) {
		for s := range 10 { // in both shards
			f.append(floats(labels.FromStrings("__name__", "m", "s", fmt.Sprint(s)), []int64{at}, []float64{1}))
		}
	}
	for i := range int64(3) { // weeks that turn warm, each by a merge
		put(start.Add(-time.Duration(i+2) * week).UnixMilli())
	}
	f.flush()
	put(start.UnixMilli())
	flushed := []time.Time{start, start}
	f.clock.Advance(2 * time.Hour)

	done := make(chan error, 1)
	go func() { done <- f.Maintain(t.Context()) }()
	<-merging
	if err := f.flushDue(t.Context(), flushed); err != nil {
		t.Fatal(err)
	}
	reached := func(i int) bool { return f.shards[i].Manifest().Applied == f.shards[i].Applied() }
	if reached(0) || !reached(1) {
		t.Errorf("while shard 0 merges it is flushed: %v; shard 1: %v", reached(0), reached(1))
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := f.shards[0].Stats().Blocks; n != [3]int{2, 1, 0} {
		t.Errorf("a flush was due after the first of three merges: %v", n)
	}
	if err := f.flushDue(t.Context(), flushed); err != nil || !reached(0) {
		t.Errorf("after the merge: %v, %v", reached(0), err)
	}
	if err := f.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.shards[0].Stats().Blocks; n != [3]int{1, 3, 0} {
		t.Errorf("in the end: %v", n)
	}
}
