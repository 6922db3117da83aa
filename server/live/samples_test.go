package live

import (
	"strconv"
	"testing"
	"time"

	"github.com/strandline-db/strandline/server/live/frame"
)

func TestSamples(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(PathLive, nil)
	c.send(`{"op":"subscribe","id":"a","query":"m{}","mode":"samples"}`)
	if ack := c.next(frame.Ack); ack.Mode != "samples" {
		t.Errorf("got %+v", ack)
	}
	now := time.Now()
	for i := range 10 {
		f.put(now.Add(time.Duration(i)*time.Millisecond), float64(i), "__name__", "m")
		d := c.next(frame.Data)
		if want := strconv.Quote(strconv.Itoa(i)); string(d.V[0].Raw) != want || int64(d.T) != now.UnixMilli()+int64(i) {
			t.Fatalf("got %+v, want %s", d, want)
		}
	}
}

func TestOlderForm(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(PathStream, nil)
	c.send(`{"action":"subscribe","metric":"orders_total"}`)
	c.next(frame.Ack)
	at := time.UnixMilli(time.Now().UnixMilli())
	f.put(at, 3, "__name__", "orders_total", "shop", "x")
	c.next(frame.Series)
	want := `{"type":"data","id":"orders_total","t":` + string(appendTime(nil, at.UnixMilli())) + `,"v":[[0,"3"]],"metric":"orders_total","timestamp":"` +
		at.UTC().Format("2006-01-02T15:04:05.000Z") + `","values":[{"labels":{"__name__":"orders_total","shop":"x"},"value":"3"}]}`
	if got := c.raw(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c.send(`{"action":"unsubscribe","metric":"orders_total"}`)
	c.next(frame.Ack)
	c.send(`{"action":"subscribe","metric":"a.metric/name"}`)
	if ack := c.next(frame.Ack); ack.ID != "a.metric/name" || ack.Query != `{__name__="a.metric/name"}` {
		t.Errorf("got %+v", ack)
	}
	c.send(`{"action":"dance","metric":"x"}`)
	if e := c.next(frame.Error); e.ErrorType != "bad_data" {
		t.Errorf("got %+v", e)
	}
}
