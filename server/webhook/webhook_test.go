package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/server/webhook"
	"github.com/strandline-db/strandline/server/webhook/hooktest"
	"github.com/strandline-db/strandline/shard/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret = "a secret of good length"
	path   = "/services/T0KEN"
)

// targets are subscriptions: all those of the map.
type targets struct {
	sync.Mutex
	by map[string]webhook.Target
}

func (t *targets) Target(id string) (webhook.Target, bool) {
	t.Lock()
	defer t.Unlock()
	x, ok := t.by[id]
	return x, ok
}

func (t *targets) add(id string, target webhook.Target) {
	t.Lock()
	defer t.Unlock()
	t.by[id] = target
}

func (t *targets) remove(id string) {
	t.Lock()
	defer t.Unlock()
	delete(t.by, id)
}

// bench is a dispatcher in a bubble, with its store and its network.
type bench struct {
	t       *testing.T
	store   *hooktest.Store
	net     *hooktest.Network
	targets *targets
	log     *lockedBuffer
	d       *webhook.Dispatcher
	start   time.Time
	seq     map[string]uint64
}

type lockedBuffer struct {
	sync.Mutex
	b bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.Lock()
	defer l.Unlock()
	return l.b.String()
}

// inBubble runs f with a dispatcher whose one subscription "s" goes to hook.example.
func inBubble(t *testing.T, h func(http.ResponseWriter, *http.Request), f func(*bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: hooktest.NewStore(), net: hooktest.NewNetwork(h), log: &lockedBuffer{}, start: time.Now(), seq: map[string]uint64{},
			targets: &targets{by: map[string]webhook.Target{"s": {URL: "http://hook.example" + path, Secret: secret}}}}
		b.net.Name("hook.example", []string{"93.184.216.34"})
		b.open(nil)
		defer b.net.Close()
		defer func() { b.d.Stop() }()
		f(b)
		for _, s := range []string{secret, "T0KEN", "services"} {
			if strings.Contains(b.log.String(), s) || strings.Contains(fmt.Sprint(b.d.Circuits()), s) {
				t.Errorf("%q was logged or shown", s)
			}
		}
	})
}

// open makes the dispatcher anew, as a restart does; it is not started.
func (b *bench) open(change func(*webhook.Options)) {
	b.t.Helper()
	o := &webhook.Options{Store: b.store, Targets: b.targets, Resolver: b.net, Dialer: b.net, Random: func() float64 { return 0 },
		Logger: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(o)
	}
	var err error
	if b.d, err = webhook.New(o); err != nil {
		b.t.Fatal(err)
	}
}

// queue stores n messages of a subscription and wakes the dispatcher.
func (b *bench) queue(sub string, n int) {
	b.t.Helper()
	for range n {
		b.seq[sub]++
		m := webhook.Message{Subscription: sub, Sequence: b.seq[sub], Created: time.Now(), Body: fmt.Appendf(nil, `{"n":%d}`, b.seq[sub])}
		c, err := m.Put()
		if err != nil {
			b.t.Fatal(err)
		}
		if err := b.store.ChangeRecords(context.Background(), &model.RecordChange{Changes: []model.Change{c}}); err != nil {
			b.t.Fatal(err)
		}
	}
	b.d.Wake(sub)
}

// after lets the bubble's time go on, until d after the start, and all that is due happen.
func (b *bench) after(d time.Duration) {
	time.Sleep(time.Until(b.start.Add(d)))
	synctest.Wait()
}

func (b *bench) bodies() (list []string) {
	for _, g := range b.net.Got() {
		list = append(list, string(g.Body))
	}
	return list
}

// times lists when requests came in, since the start.
func (b *bench) times() (list []time.Duration) {
	for _, g := range b.net.Got() {
		list = append(list, g.At.Sub(b.start).Round(10*time.Millisecond))
	}
	return list
}

func (b *bench) state() string {
	list := b.d.Circuits()
	if len(list) != 1 {
		b.t.Fatalf("circuits %v", list)
	}
	return list[0].State
}

func (b *bench) expect(what string, got, want any) {
	b.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Fatalf("%s:\ngot  %v\nwant %v\nlog:\n%s", what, got, want, b.log)
	}
}

func (b *bench) left() int { return len(b.store.Records(webhook.Prefix)) }

func ok(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func TestDeliversInOrderAndSigned(t *testing.T) {
	inBubble(t, ok, func(b *bench) {
		b.queue("s", 12) // before the start: from the store
		b.d.Start()
		b.after(time.Second)
		b.queue("s", 1)
		b.after(2 * time.Second)
		b.expect("left", b.left(), 0)
		got := b.net.Got()
		b.expect("requests", len(got), 13)
		for i, g := range got {
			b.expect("body", string(g.Body), fmt.Sprintf(`{"n":%d}`, i+1))
			b.expect("path", g.Path, path)
			b.expect("delivery", g.Header.Get(webhook.HeaderDelivery), fmt.Sprintf("s-%d", i+1))
			b.expect("type", g.Header.Get("Content-Type"), "application/json")
			sig := g.Header.Get(webhook.HeaderSignature)
			b.expect("signature", webhook.Verify(secret, sig, g.Body, time.Now(), 5*time.Minute), nil)
			if !errors.Is(webhook.Verify("another", sig, g.Body, time.Now(), time.Minute), webhook.ErrSignature) ||
				!errors.Is(webhook.Verify(secret, sig, append(g.Body, ' '), time.Now(), time.Minute), webhook.ErrSignature) ||
				!errors.Is(webhook.Verify(secret, sig, g.Body, time.Now().Add(time.Hour), time.Minute), webhook.ErrSignature) {
				t.Fatal("a wrong signature was taken")
			}
		}
		b.expect("state", b.state(), "closed")
	})
}

// A target that fails is tried after 1, 2, 4 and 8 s; the fifth failure opens the circuit
// for 30 s, then one attempt is let through.
func TestFailingTarget(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}, func(b *bench) {
		b.d.Start()
		b.queue("s", 3)
		b.after(14 * time.Second)
		b.expect("state", b.state(), "closed")
		b.after(15*time.Second + 10*time.Millisecond)
		b.expect("state after five failures", b.state(), "open")
		b.after(44 * time.Second)
		b.expect("state in the pause", b.state(), "open")
		b.after(46 * time.Second)
		b.expect("state after the trial failed", b.state(), "open")
		b.expect("attempts", b.times(), []time.Duration{0, 1e9, 3e9, 7e9, 15e9, 45.25e9})
		broken.Store(false)
		b.after(74*time.Second + 900*time.Millisecond)
		b.expect("attempts", len(b.times()), 6)
		b.after(78 * time.Second)
		b.expect("state in the end", b.state(), "closed")
		b.expect("left", b.left(), 0)
		b.expect("bodies", b.bodies()[5:], []string{`{"n":1}`, `{"n":1}`, `{"n":2}`, `{"n":3}`})
		c := b.d.Circuits()[0]
		b.expect("counts", fmt.Sprint(c.Delivered, c.Failed, c.Failures, c.LastError), "3 6 0")
	})
}

func TestHalfOpenLetsOneThrough(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, func(b *bench) {
		for i := range 10 {
			b.targets.by[fmt.Sprint("m", i)] = b.targets.by["s"] // ten subscriptions, one target
		}
		b.d.Start()
		for i := range 10 {
			b.queue(fmt.Sprint("m", i), 1)
		}
		b.after(time.Second / 2)
		b.expect("state", b.state(), "open")
		n := len(b.times())
		if n < 5 || n > 10 {
			t.Fatalf("%d attempts before it opened", n)
		}
		b.after(30*time.Second + 500*time.Millisecond)
		b.expect("attempts of the trial", len(b.times()), n+1)
		b.after(60*time.Second + 900*time.Millisecond)
		b.expect("attempts of two trials", len(b.times()), n+2)
	})
}

// TestBrokenPathHoldsUpNoOther: a target is a URL, not a host.
func TestBrokenPathHoldsUpNoOther(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusNotFound)
		}
	}, func(b *bench) {
		b.targets.by["bad"] = webhook.Target{URL: "http://hook.example/broken"}
		b.d.Start()
		b.queue("bad", 1)
		b.after(20 * time.Second)
		for i := range 5 {
			b.queue("s", 1)
			b.after(time.Duration(20+i)*time.Second + time.Second/2)
			b.expect("left", b.left(), 1)
		}
		list := b.d.Circuits()
		b.expect("circuits", len(list), 2)
		b.expect("the broken one", brief(list[0]), "{http://hook.example:80 [bad] open 5}")
		b.expect("the other", brief(list[1]), "{http://hook.example:80 [s] closed 0}")
		b.targets.remove("bad")
		b.expect("circuits after its removal", len(b.d.Circuits()), 1)
	})
}

func brief(c webhook.Circuit) any {
	return struct {
		target   string
		subs     []string
		state    string
		failures int
	}{c.Target, c.Subscriptions, c.State, c.Failures}
}

// TestTrialIsFair: a message that the target refuses for itself does not keep those of
// another subscription to the same URL waiting for longer than a trial.
func TestTrialIsFair(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get(webhook.HeaderDelivery), "bad-") {
			w.WriteHeader(http.StatusBadRequest)
		}
	}, func(b *bench) {
		b.targets.by["bad"] = b.targets.by["s"]
		b.d.Start()
		b.queue("bad", 1)
		b.after(20 * time.Second)
		b.expect("state", b.state(), "open")
		b.queue("s", 3)
		b.after(45*time.Second + 500*time.Millisecond)
		b.expect("left after the first trial", b.left(), 1)
		b.expect("state after it", b.state(), "closed")
	})
}

// TestHangingHostHoldsUpNoOther: however many subscriptions go there.
func TestHangingHostHoldsUpNoOther(t *testing.T) {
	inBubble(t, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "hang.") {
			<-r.Context().Done()
		}
	}, func(b *bench) {
		b.net.Name("hang.example", []string{"93.184.216.35"})
		for i := range 50 {
			b.targets.by[fmt.Sprint("m", i)] = webhook.Target{URL: fmt.Sprint("http://hang.example/", i)}
		}
		b.d.Start()
		for i := range 50 {
			b.queue(fmt.Sprint("m", i), 1)
		}
		b.after(time.Second)
		b.expect("attempts", len(b.net.Got()), 4)
		b.queue("s", 3)
		b.after(2 * time.Second)
		b.expect("left", b.left(), 50)
		b.after(time.Hour)
		b.d.Stop()
		b.expect("left in the end", b.left(), 50)
	})
}

// TestHangingPathsLeaveRoom: once they have failed they take but half of their host's turns.
func TestHangingPathsLeaveRoom(t *testing.T) {
	inBubble(t, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/hang") {
			<-r.Context().Done()
		}
	}, func(b *bench) {
		const hanging = 20
		b.d.Start()
		for i := range hanging {
			sub := fmt.Sprint("m", i)
			b.targets.add(sub, webhook.Target{URL: fmt.Sprint("http://hook.example/hang", i)})
			b.queue(sub, 1)
		}
		b.after(hanging / 4 * 10 * time.Second) // each has had its first turn
		for i := range 120 {
			b.queue("s", 1)
			b.after(hanging/4*10*time.Second + time.Duration(i)*time.Second + time.Second/2)
			b.expect("left", b.left(), hanging)
		}
		for _, c := range b.d.Circuits() {
			if c.Subscriptions[0] != "s" && c.Failed < 2 {
				t.Errorf("%v has not had its turns", c)
			}
		}
	})
}

// TestManyCircuits: those of subscriptions that are gone are forgotten.
func TestManyCircuits(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, func(b *bench) {
		b.d.Start()
		for i := range 500 {
			sub := fmt.Sprint("m", i)
			b.targets.add(sub, webhook.Target{URL: "http://hook.example/" + sub})
			b.queue(sub, 1)
			b.after(time.Duration(i+1) * time.Second)
			b.targets.remove(sub)
		}
		b.after(time.Hour)
		b.expect("circuits", len(b.d.Circuits()), 0)
	})
}

func TestHangingTarget(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(b *bench) {
		b.d.Start()
		b.queue("s", 1)
		b.after(9 * time.Second)
		b.expect("failed before the timeout", b.d.Circuits()[0].Failed, 0)
		b.after(10*time.Second + 10*time.Millisecond)
		b.expect("failed after it", b.d.Circuits()[0].Failed, 1)
		b.after(12 * time.Second)
		b.expect("attempts", b.times(), []time.Duration{0, 11e9})
		b.expect("left", b.left(), 1)
	})
}

func TestRedirectIsNotFollowed(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusTemporaryRedirect)
	}, func(b *bench) {
		b.d.Start()
		b.queue("s", 1)
		b.after(2 * time.Second)
		b.expect("dialed", b.net.Dialed(), []string{"93.184.216.34:80", "93.184.216.34:80"})
		b.expect("left", b.left(), 1)
		b.expect("error", b.d.Circuits()[0].LastError, "webhook target answered 307")
	})
}

func TestRetryAfterIsHeard(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "100")
		w.WriteHeader(http.StatusTooManyRequests)
	}, func(b *bench) {
		b.d.Start()
		b.queue("s", 1)
		b.after(101 * time.Second)
		b.expect("attempts", b.times(), []time.Duration{0, 100e9})
	})
}

func TestLongAnswerIsCut(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 1 << 10 {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}, func(b *bench) {
		b.d.Start()
		b.queue("s", 2)
		b.after(time.Second)
		b.expect("left", b.left(), 0)
	})
}

// A dispatcher that stops in the middle of an attempt leaves the message; the next one
// delivers it under the same id.
func TestRestartLosesNothing(t *testing.T) {
	var hang atomic.Bool
	hang.Store(true)
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if hang.Load() {
			<-r.Context().Done()
		}
	}, func(b *bench) {
		b.d.Start()
		b.queue("s", 5)
		b.after(time.Second)
		b.d.Stop()
		b.expect("left", b.left(), 5)
		b.expect("failed", b.d.Circuits()[0].Failed, 0) // being stopped says nothing of the target
		hang.Store(false)
		b.queue("s", 2) // stored while nobody delivers
		b.open(nil)
		b.d.Start()
		b.after(5 * time.Second)
		b.expect("left", b.left(), 0)
		b.expect("bodies", b.bodies(), []string{`{"n":1}`, `{"n":1}`, `{"n":2}`, `{"n":3}`, `{"n":4}`, `{"n":5}`, `{"n":6}`, `{"n":7}`})
	})
}

// While the store fails a message that was taken is not sent again.
func TestStoreFailureRepeatsNothing(t *testing.T) {
	inBubble(t, ok, func(b *bench) {
		b.d.Start()
		b.queue("s", 1)
		failures := 0
		b.store.Fail(func(c *model.RecordChange) error {
			if failures++; failures <= 3 {
				return model.ErrUnavailable
			}
			return nil
		})
		b.after(10 * time.Second)
		b.expect("left", b.left(), 0)
		b.expect("requests", len(b.net.Got()), 1)
	})
}

func TestOldAndOrphanedMessagesGo(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, func(b *bench) {
		b.d.Start()
		b.queue("s", 1)
		b.after(23 * time.Hour)
		b.expect("left in time", b.left(), 1)
		b.after(25 * time.Hour)
		b.expect("left after it", b.left(), 0)
		b.queue("s", 3)
		b.after(25*time.Hour + time.Second)
		b.expect("left", b.left(), 3)
		b.targets.remove("s")
		b.after(26 * time.Hour)
		b.expect("left of a removed subscription", b.left(), 0)
	})
}

func TestPrivateAddressesAreRefused(t *testing.T) {
	for name, answers := range map[string][][]string{
		"by DNS":               {{"10.0.0.1"}},
		"one of several":       {{"93.184.216.34", "127.0.0.1"}},
		"mapped":               {{"::ffff:127.0.0.1"}},
		"cloud metadata":       {{"169.254.169.254"}},
		"cloud metadata, IPv6": {{"fd00:ec2::254"}},
		"NAT64":                {{"64:ff9b::a00:1"}},
		"nothing":              {{}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, ok, func(b *bench) {
				b.targets.by["p"] = webhook.Target{URL: "http://private.example/"}
				b.net.Name("private.example", answers...)
				b.d.Start()
				b.queue("p", 1)
				b.after(20 * time.Second)
				b.expect("dialed", len(b.net.Dialed()), 0)
				b.expect("left", b.left(), 1)
				if name != "nothing" {
					b.expect("error", strings.Contains(b.d.Circuits()[0].LastError, webhook.ErrForbiddenAddress.Error()), true)
				}
			})
		})
	}
}

// The name is resolved once for each delivery, and what was checked is what is dialed.
func TestRebindingIsRefused(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, func(b *bench) {
		b.targets.by["p"] = webhook.Target{URL: "http://rebind.example:8080/"}
		b.net.Name("rebind.example", []string{"93.184.216.34"}, []string{"127.0.0.1"}, []string{"::1"}, []string{"2606:4700::1111"})
		b.d.Start()
		b.queue("p", 1)
		b.after(14 * time.Second)
		b.expect("dialed", b.net.Dialed(), []string{"93.184.216.34:8080", "[2606:4700::1111]:8080"})
	})
}

func TestAllowedNetwork(t *testing.T) {
	allow, err := webhook.ParseAllow("10.1.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	inBubble(t, ok, func(b *bench) {
		b.targets.by["in"] = webhook.Target{URL: "http://10.1.2.3/"}
		b.targets.by["out"] = webhook.Target{URL: "http://10.2.2.3/"}
		b.open(func(o *webhook.Options) { o.Policy = webhook.Policy{Allow: []netip.Prefix{allow}} })
		b.d.Start()
		b.queue("in", 1)
		b.queue("out", 1)
		b.after(5 * time.Second)
		b.expect("dialed", b.net.Dialed(), []string{"10.1.2.3:80"})
		b.expect("left", b.left(), 1)
	})
}

func TestProxyOfTheEnvironmentIsIgnored(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, "http://proxy.example:3128")
	}
	inBubble(t, ok, func(b *bench) {
		b.d.Start()
		b.queue("s", 1)
		b.after(time.Second)
		b.expect("dialed", b.net.Dialed(), []string{"93.184.216.34:80"})
	})
}

func TestPolicy(t *testing.T) {
	var p webhook.Policy
	for _, s := range []string{"http://127.0.0.1/", "http://[::1]/", "http://[::]/", "http://0.0.0.0/", "http://0.1.2.3/", "http://10.0.0.1:80/",
		"http://172.16.0.1/", "http://192.168.1.1/", "http://169.254.169.254/latest", "http://[fe80::1]/", "http://[fd00:ec2::254]/",
		"http://[::ffff:10.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/", "http://100.64.0.1/", "http://100.100.100.200/", "http://224.0.0.1/",
		"http://255.255.255.255/", "http://[ff02::1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[2001::1]/", "http://[fec0::1]/", "http://198.18.0.1/"} {
		if _, err := p.Check(s); !errors.Is(err, webhook.ErrForbiddenAddress) {
			t.Errorf("%s: got %v", s, err)
		}
	}
	for _, s := range []string{"", "ftp://a.example/", "http://", "http:///x", "file:///etc/passwd", "http://user:pw@a.example/", "http://user@a.example/", "http://a.example:0/",
		"http://a.example:99999/", "http://a.example:x/", "http://a.example/#f", "http://a b.example/", "http://[fe80::1%25eth0]/", "gopher://a.example/", "http:a.example",
		"http://a.example\\@127.0.0.1/", "http://a\tb/", "//a.example/", "http://" + strings.Repeat("a", 2048)} {
		if _, err := p.Check(s); !errors.Is(err, webhook.ErrBadURL) {
			t.Errorf("%q: got %v", s, err)
		}
	}
	for _, s := range []string{"http://a.example", "https://a.example:8443/x?y=z", "http://93.184.216.34/", "http://[2606:4700::1111]:80/"} {
		if _, err := p.Check(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"10.0.0.1/33", "x", "::ffff:10.0.0.0/104"} {
		if _, err := webhook.ParseAllow(s); err == nil {
			t.Errorf("%q was taken as a network", s)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"http://a.example/x?y", "https://[::1]:80/", "http://127.0.0.1", "http://u:p@h/", "http://0x7f.1/", "http://[::ffff:1.2.3.4]:1/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var p webhook.Policy
		u, err := p.Check(s)
		if (u == nil) != (err != nil) {
			t.Fatal("neither a URL nor an error, or both")
		}
		if err != nil {
			if !errors.Is(err, webhook.ErrBadURL) && !errors.Is(err, webhook.ErrForbiddenAddress) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Hostname() == "" {
			t.Fatalf("%q was taken", s)
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && (a.Unmap().IsLoopback() || a.Unmap().IsPrivate() || a.Unmap().IsLinkLocalUnicast() ||
			a.Unmap().IsMulticast() || a.Unmap().IsUnspecified() || a.IsInterfaceLocalMulticast()) {
			t.Fatalf("%q was taken", s)
		}
		if again, err := p.Check(u.String()); err != nil || again.Host != u.Host {
			t.Fatalf("%q: read again: %v", s, err)
		}
		webhook.Origin(u)
	})
}

func FuzzVerify(f *testing.F) {
	now := time.Unix(1_700_000_000, 0)
	f.Add(webhook.Sign("k", []byte("{}"), now), []byte("{}"))
	f.Add("t=1700000000,v1=00,v1=", []byte("{}"))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		err := webhook.Verify("k", header, body, now, time.Hour)
		if err == nil && !slices.ContainsFunc(strings.Split(header, ","), func(p string) bool { return strings.HasPrefix(p, "v1=") && len(p) == 67 }) {
			t.Fatal("taken without a signature")
		}
	})
}
