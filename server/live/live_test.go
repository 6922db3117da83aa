package live

import (
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"github.com/strandline-db/strandline/server/live/frame"
)

func TestSubscribe(t *testing.T) {
	f := newFixture(t, &Options{Heartbeat: 50 * time.Millisecond})
	f.put(time.Now().Add(-time.Second), 12.5, "__name__", "m", "region", "eu")
	c := f.dial(PathLive, nil)
	c.send(`{"op":"subscribe","id":"a","query":"m","step":"100ms"}`)
	if ack := c.next(frame.Ack); ack.ID != "a" || ack.Op != "subscribe" || ack.Step.String() != "100ms" || ack.Mode == "" || ack.Query != "m" {
		t.Errorf("got %+v", ack)
	}
	def := c.next(frame.Series)
	if len(def.Series) != 1 || def.Series[0].Labels["region"] != "eu" || def.Series[0].Labels["__name__"] != "m" {
		t.Fatalf("got %+v", def)
	}
	last := frame.Time(0)
	for range 5 {
		d := c.next(frame.Data)
		if d.ID != "a" || len(d.V) != 1 || d.V[0].N != def.Series[0].N || string(d.V[0].Raw) != `"12.5"` || d.T%100 != 0 || last != 0 && d.T != last+100 {
			t.Fatalf("got %+v after %d", d, last)
		}
		last = d.T
	}
	if h := c.next(frame.Heartbeat); h.T < last || h.Known["a"] != h.T {
		t.Errorf("got %+v after %d", h, last)
	}
	c.send(`{"op":"unsubscribe","id":"a"}`)
	c.next(frame.Ack)
	for range 3 {
		if h := c.next(frame.Heartbeat, frame.Data); h.Type == frame.Data {
			t.Errorf("got %+v after the end", h)
		}
	}
	if err := c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c.closed(1000)
	until(t, "the connection is gone", func() bool { return len(f.all()) == 0 })
	if n := f.hub.Stats().Subscribers; n != 0 {
		t.Errorf("%d subscribers are left", n)
	}
}

func TestSet(t *testing.T) {
	f := newFixture(t, nil)
	f.put(time.Now().Add(-time.Second), 1, "__name__", "m")
	c := f.dial(PathLive, nil)
	c.send(`{"op":"set","subs":[{"id":"a","query":"m","step":"100ms"},{"id":"b","query":"m*2","step":"100ms"}]}`)
	c.next(frame.Ack)
	c.next(frame.Ack)
	c.send(`{"op":"set","subs":[{"id":"b","query":"m*3","step":"100ms"},{"id":"c","query":"("}]}`)
	var got []string
	for len(got) < 3 {
		if fr := c.next(frame.Ack, frame.Error); fr.Op != "" {
			got = append(got, fr.Type+" "+fr.Op+" "+fr.ID)
		}
	}
	for i, want := range []string{"ack unsubscribe a", "ack set b", "error set c"} {
		if got[i] != want {
			t.Errorf("got %v", got)
		}
	}
	for range 3 {
		if d := c.next(frame.Data); d.ID != "b" || string(d.V[0].Raw) != `"3"` {
			t.Fatalf("got %+v", d)
		}
	}
}

// TestHeartbeatsClaimNothingTooEarly: what a heartbeat says is known has been sent.
func TestHeartbeatsClaimNothingTooEarly(t *testing.T) {
	f := newFixture(t, &Options{Heartbeat: 200 * time.Millisecond})
	f.put(time.Now().Add(-time.Minute), 1, "__name__", "m")
	c := f.dial(PathLive, nil)
	c.send(`{"op":"subscribe","id":"a","query":"m","step":"100ms","backfill":"5m"}`)
	last := c.next(frame.Ack).T
	if now := frame.Time(time.Now().UnixMilli()); last > now-290_000 || last < now-310_000 {
		t.Errorf("at %d it begins after %d", now, last)
	}
	for n := 0; n < 5; {
		switch fr := c.next(frame.Data, frame.Heartbeat); {
		case fr.Type == frame.Data:
			last = fr.T
		case fr.Known["a"] > last:
			t.Fatalf("%d is known, but %d was sent", fr.Known["a"], last)
		case fr.Known["a"] > 0:
			n++
		}
	}
}
