package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/shard/model"
)

// replica has applied what a test lets it.
type replica struct {
	mu      sync.Mutex
	index   uint64
	changed chan struct{}
	waiting int
}

func (r *replica) sync(ctx context.Context, a model.Applied) error {
	r.mu.Lock()
	r.waiting++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.waiting--
		r.mu.Unlock()
	}()
	for {
		r.mu.Lock()
		index, changed := r.index, r.changed
		r.mu.Unlock()
		if index >= a[0].Index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *replica) apply(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index = index
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *replica) waits() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

func newReplica(t *testing.T, o Options) (*replica, *fixture) {
	r := &replica{changed: make(chan struct{})}
	o.Sync, o.SyncTimeout = r.sync, patience
	return r, newFixture(t, &o)
}

// answer returns the next ack or error, in brief.
func (c *rawClient) answer() string {
	c.t.Helper()
	f := c.next(frame.Ack, frame.Error)
	if f.Type == frame.Error {
		return fmt.Sprintf("%s %s %s", f.ErrorType, f.Op, f.ID)
	}
	return fmt.Sprintf("%s %s %s", f.Type, f.Op, f.ID)
}

func (c *rawClient) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.answer(); got != w {
			c.t.Fatalf("got %q, want %q", got, w)
		}
	}
}

// TestWaitingHoldsUpNothing: neither the connection's other messages nor other
// connections, however many wait.
func TestWaitingHoldsUpNothing(t *testing.T) {
	r, f := newReplica(t, Options{})
	var all []*rawClient
	for range 2 * maxRequests {
		c := f.dial(PathLive, nil)
		c.send(`{"op":"subscribe","id":"late","query":"m","applied":"0:7"}`)
		c.send(`{"op":"subscribe","id":"now","query":"m"}`)
		c.send(`{"op":"unsubscribe","id":"now"}`)
		all = append(all, c)
	}
	for _, c := range all {
		c.expect("ack subscribe now", "ack unsubscribe now")
	}
	until(t, "all wait", func() bool { return r.waits() == len(all) })
	r.apply(7)
	for _, c := range all {
		c.expect("ack subscribe late")
	}
}

// TestWaitingIsASubscription: it has its id, counts, and can be given up.
func TestWaitingIsASubscription(t *testing.T) {
	r, f := newReplica(t, Options{MaxSubs: 2})
	c := f.dial(PathLive, nil)
	c.send(`{"op":"subscribe","id":"a","query":"m","applied":"0:7"}`)
	c.send(`{"op":"subscribe","id":"a","query":"n"}`)
	c.expect("bad_data subscribe a")
	c.send(`{"op":"subscribe","id":"b","query":"m","applied":"0:8"}`)
	c.send(`{"op":"subscribe","id":"c","query":"m"}`)
	c.expect("limit subscribe c")
	c.send(`{"op":"unsubscribe","id":"a"}`)
	c.expect("canceled subscribe a", "ack unsubscribe a")
	c.send(`{"op":"subscribe","id":"a","query":"n"}`)
	c.expect("ack subscribe a")
	r.apply(8)
	c.expect("ack subscribe b")
	c.send(`{"op":"unsubscribe","id":"b"}`)
	c.expect("ack unsubscribe b")
	until(t, "nobody waits", func() bool { return r.waits() == 0 && len(f.waits) == 0 })
	if n := f.hub.Stats().Subscribers; n != 1 {
		t.Errorf("%d subscribers", n)
	}
}

// TestWaitingInASet: what is the same goes on to wait, and the rest is given up.
func TestWaitingInASet(t *testing.T) {
	r, f := newReplica(t, Options{})
	c := f.dial(PathLive, nil)
	c.send(`{"op":"set","subs":[{"id":"a","query":"m","applied":"0:7"},{"id":"b","query":"m","applied":"0:7"},{"id":"c","query":"m"},{"id":"d","query":"m","applied":"0:7"}]}`)
	c.expect("ack set c")
	c.send(`{"op":"set","subs":[{"id":"a","query":"m","applied":"0:9"},{"id":"b","query":"n","applied":"0:9"},{"id":"c","query":"m"}]}`)
	c.expect("canceled set b", "canceled set d", "ack unsubscribe d", "ack set c")
	r.apply(8)
	c.expect("ack set a")
	r.apply(9)
	c.expect("ack set b")
	until(t, "nobody waits", func() bool { return r.waits() == 0 })
}

// TestWaitingEndsWithTheConnection: and with the server.
func TestWaitingEndsWithTheConnection(t *testing.T) {
	r, f := newReplica(t, Options{})
	one, other := f.dial(PathLive, nil), f.dial(PathLive, nil)
	one.send(`{"op":"subscribe","id":"a","query":"m","applied":"0:7"}`)
	other.send(`{"op":"subscribe","id":"a","query":"m","applied":"0:7"}`)
	until(t, "both wait", func() bool { return r.waits() == 2 })
	_ = one.ws.Close()
	until(t, "one waits", func() bool { return r.waits() == 1 && len(f.all()) == 1 })
	closed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		closed <- f.Close(ctx)
	}()
	other.closed(closeGoingAway)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if n := r.waits(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// TestTooManyWait: they are refused for now, and the connection goes on.
func TestTooManyWait(t *testing.T) {
	r, f := newReplica(t, Options{MaxSubs: 2 * maxWaiting})
	c := f.dial(PathLive, nil)
	for i := range maxWaiting {
		c.send(fmt.Sprintf(`{"op":"subscribe","id":"%d","query":"m","applied":"0:7"}`, i))
	}
	c.send(`{"op":"subscribe","id":"more","query":"m","applied":"0:7"}`)
	c.expect("unavailable subscribe more")
	c.send(`{"op":"subscribe","id":"other","query":"m"}`)
	c.expect("ack subscribe other")
	r.apply(7)
	for range maxWaiting {
		c.answer()
	}
}

// TestStreamWaits: the events begin once all writes are applied.
func TestStreamWaits(t *testing.T) {
	r, f := newReplica(t, Options{})
	done := make(chan *http.Response, 1)
	go func() { done <- f.get(PathSSE+"?query=m&query=n&applied=0:7&applied=0:8", nil) }()
	until(t, "it waits", func() bool { return r.waits() == 1 })
	r.apply(7)
	until(t, "it waits for the next", func() bool { return r.waits() == 1 })
	r.apply(8)
	if res := <-done; res.StatusCode != 200 {
		t.Errorf("got %v", res)
	}
}

// TestSlowHandler: a stream that waits for long is not given up under its handler, and is
// all there then.
func TestSlowHandler(t *testing.T) {
	r, f := newReplica(t, Options{Heartbeat: 10 * time.Millisecond})
	f.put(time.Now(), 1, "__name__", "m")
	done := make(chan *http.Response, 1)
	go func() { done <- f.get(PathSSE+"?query=m&step=100ms&applied=0:7", nil) }()
	until(t, "it waits", func() bool { return r.waits() == 1 })
	until(t, "four beats are due", func() bool {
		c := f.all()[0]
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.mu.ping
	})
	r.apply(7)
	res := <-done
	if n, err := io.ReadFull(res.Body, make([]byte, 512)); res.StatusCode != 200 || err != nil {
		t.Errorf("got %v %d %v", res, n, err)
	}
	_ = res.Body.Close()
	until(t, "nothing is left", func() bool { return len(f.all()) == 0 && f.hub.Stats().Subscribers == 0 })
}

// TestKilledInItsHandler: a server that closes waits for the handler, and nothing is left.
func TestKilledInItsHandler(t *testing.T) {
	r, f := newReplica(t, Options{})
	done := make(chan *http.Response, 1)
	go func() { done <- f.get(PathSSE+"?query=m&applied=0:7", nil) }()
	until(t, "it waits", func() bool { return r.waits() == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	closed := make(chan error, 1)
	go func() { closed <- f.Close(ctx) }()
	until(t, "it is cut", func() bool {
		all := f.all()
		return len(all) == 1 && all[0].isCut()
	})
	r.apply(7)
	if err := <-closed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if res := <-done; res.StatusCode != 503 {
		t.Errorf("got %v", res)
	}
	if n := f.hub.Stats().Subscribers; n != 0 {
		t.Errorf("%d subscribers are left", n)
	}
}
