package wal

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/strandline-db/strandline/wal/vfs"
)

// TestCompany: streams that are always written one shortly after the other come to share
// an fsync; when one of them stays away, the others wait for it a Pace at most, and soon
// not at all.
func TestCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pace = 4 * time.Millisecond
		log, err := Open("log", &Options{FS: vfs.NewMem(), Pace: pace})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		index := map[StreamID]uint64{}
		request := func(streams ...StreamID) (syncs int64, longest time.Duration) { // a millisecond apart
			before, began := log.Stats().Fsyncs, time.Now()
			var wg sync.WaitGroup
			for i, s := range streams {
				index[s]++
				wg.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					if err := log.Append([]Entry{{Stream: s, Index: index[s], Term: 1}}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			longest = time.Since(began)
			time.Sleep(50 * time.Millisecond)
			return log.Stats().Fsyncs - before, longest
		}
		if n, _ := request(1, 2, 3); n != 3 {
			t.Errorf("%d fsyncs for three streams that are new to each other", n)
		}
		for range 10 {
			request(1, 2, 3)
		}
		if n, d := request(1, 2, 3); n != 1 || d != 2*time.Millisecond {
			t.Errorf("%d fsyncs, the last after %v, for three streams that come together", n, d)
		}
		if n, d := request(1, 2); n != 1 || d != pace {
			t.Errorf("%d fsyncs, the last after %v, when one of three stays away", n, d)
		}
		for range 10 {
			request(1)
		}
		if n, d := request(1); n != 1 || d != 0 {
			t.Errorf("a stream that has come alone lately waits for %v (%d fsyncs)", d, n)
		}
		if n, d := request(1, 2); n != 2 || d != time.Millisecond {
			t.Errorf("%d fsyncs after %v: one that came along long ago is still waited for", n, d)
		}
	})
}

// TestCompanyForgets: what is known of streams that are gone goes too.
func TestCompanyForgets(t *testing.T) {
	c := company{longest: time.Millisecond}
	now := time.Unix(1000, 0)
	for s := range StreamID(100) {
		c.join(s, now)
	}
	for range 100 {
		now = now.Add(time.Second)
		c.join(7, now)
	}
	if len(c.streams) != 1 || c.absent != 0 {
		t.Errorf("%d streams are remembered, %d waited for", len(c.streams), c.absent)
	}
}
