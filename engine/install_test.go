package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// TestInstallResumes: an install that breaks off goes on with the next attempt, which
// fetches no block again that has come whole; what comes damaged is not taken.
func TestInstallResumes(t *testing.T) {
	from, to := newFixture(t, Options{Retention: -1, Shards: 1}), newFixture(t, Options{Retention: -1, Shards: 1})
	day := (24 * time.Hour).Milliseconds()
	for i := range int64(6) { // blocks of windows apart
		from.append(floats(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), []int64{start.UnixMilli() - 10*i*day}, []float64{float64(i)}))
		from.flush()
	}
	offer, err := from.shards[0].Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]int{}
	left, harm := 3, func([]byte) {}
	broken := errors.New("the connection has ended")
	fetch := func(_ context.Context, name string, off int64, n int, use func([]byte) error) error {
		mu.Lock()
		left--
		over := left < 0
		asked[name]++
		mu.Unlock()
		if over {
			return broken
		}
		b, err := from.shards[0].ReadBlock(nil, name, off, n)
		if err != nil {
			return err
		}
		harm(b)
		return use(b)
	}
	install := func() error {
		return to.shards[0].Install(context.Background(), offer.Data, Mark{Applied: offer.Manifest.Applied, Term: 1}, fetch)
	}
	if err := install(); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	first := maps.Clone(asked)
	var damage *model.CorruptionError
	left, harm = 1<<30, func(b []byte) { b[len(b)/2] ^= 1 }
	if err := install(); !errors.As(err, &damage) {
		t.Fatal(err)
	}
	if n := to.shards[0].Applied(); n != 0 {
		t.Fatalf("entry %d is here after a damaged block", n)
	}
	harm = func([]byte) {}
	if err := install(); err != nil {
		t.Fatal(err)
	}
	if err := offer.Release(); err != nil {
		t.Fatal(err)
	}
	once := 0
	for name, n := range asked {
		if n == 1 && first[name] == 1 {
			once++
		}
	}
	if len(asked) != 6 || once < 1 {
		t.Fatalf("of %v only %d blocks were fetched once", asked, once)
	}
	_, want, err1 := from.shards[0].Hash(context.Background())
	_, got, err2 := to.shards[0].Hash(context.Background())
	if err := errors.Join(err1, err2); err != nil || got != want {
		t.Fatalf("hash %x, want %x, %v", got, want, err)
	}
}

// TestWaitsForInstall: while an install waits for the blocks of another node, a flush of
// the shard gives up with its context, and what is asked of the shard is answered.
func TestWaitsForInstall(t *testing.T) {
	from, to := newFixture(t, Options{Shards: 1}), newFixture(t, Options{Shards: 1})
	from.append(floats(labels.FromStrings("__name__", "m"), []int64{start.UnixMilli()}, []float64{1}))
	from.flush()
	offer, err := from.shards[0].Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	silent := errors.New("the node does not answer")
	in, out := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(in) })
	installed := make(chan error)
	s := to.shards[0]
	go func() {
		installed <- s.Install(t.Context(), offer.Data, Mark{Applied: offer.Manifest.Applied, Term: 1},
			func(context.Context, string, int64, int, func([]byte) error) error { once(); <-out; return silent })
	}()
	<-in
	for name, op := range map[string]func(context.Context) error{
		"flush": func(ctx context.Context) error { _, err := s.Flush(ctx); return err },
		"persist": func(ctx context.Context) error {
			c := s.Freeze()
			defer s.Unfreeze(c)
			return s.Persist(ctx, c, Mark{})
		},
		"maintain": func(ctx context.Context) error { return s.Maintain(ctx, start) },
		"offer":    func(ctx context.Context) error { _, err := s.Offer(ctx); return err },
		"wipe":     s.Wipe,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if err := op(&asked{Context: ctx, tell: cancel}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if n := len(s.Blocks()); n != 0 {
		t.Errorf("%d blocks", n)
	}
	close(out)
	if err := errors.Join(<-installed, offer.Release()); !errors.Is(err, silent) {
		t.Error(err)
	}
	if _, err := s.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}
