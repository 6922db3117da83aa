package live

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// forgetful is a storage that forgets series, so that no number of them is too many for a feed.
type forgetful struct{ *querytest.Store }

func (f forgetful) Subscribe(ctx context.Context, req *model.FeedRequest) (model.Feed, error) {
	more := *req
	more.MaxSeries = 0
	return f.Store.Subscribe(ctx, &more)
}

// TestSamplesChurn: samples mode keeps as much as its events speak of, however many series
// come and go, and each sample comes once meanwhile.
func TestSamplesChurn(t *testing.T) {
	const ring, most, total = 4, 20, 1500
	f := &fixture{t: t, store: querytest.New(), clock: clock.NewManual(start), wake: make(chan struct{}, 1)}
	q, err := query.New(f.store, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.Hub, err = New(forgetful{f.store}, f.store, q, &Options{Clock: f.clock, Horizon: -1, Ring: ring, MaxSeries: most}); err != nil {
		t.Fatal(err)
	}
	s := f.subscribe(Request{Query: "m", Samples: true})
	seen := map[int64]int{}
	for i := range total {
		at := f.clock.Now().UnixMilli()
		f.put(labels.FromStrings("__name__", "m", "s", fmt.Sprint(i)), at, float64(i))
		for _, ev := range f.until(s, at) {
			switch ev.Kind {
			case DataKind:
				seen[ev.Step.T] += len(ev.Step.Values)
			case DroppedKind, ErrorKind:
				t.Fatalf("sample %d: %+v", i, ev)
			}
		}
		f.clock.Advance(time.Second)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if len(seen) != total {
		t.Errorf("%d of %d samples came", len(seen), total)
	}
	for at, n := range seen {
		if n > 1 {
			t.Errorf("that of %d came %d times", at, n)
		}
	}
	if n := len(s.e.pass.names); n > namesPerSeries*most+2 {
		t.Errorf("%d names are kept", n)
	}
	if n := len(s.e.mu.series.all); n > 2*ring*samplesRing+300 {
		t.Errorf("%d numbers are kept", n)
	}
}
