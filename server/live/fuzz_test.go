package live

import (
	"net/url"
	"testing"
	"time"

	"github.com/strandline-db/strandline/server/live/frame"
)

// FuzzStream: whatever URL and cursor come, what is accepted is well formed and its
// cursor comes back.
func FuzzStream(f *testing.F) {
	f.Add("query=up&query=m&step=1s&backfill=5m", "mwv73z14-0")
	f.Add("query=up&mode=samples&applied=0%3A12", "")
	f.Add("query=up&step=0.25", "zzzzzzzzzzzz")
	f.Add("query=up", "garbage")
	f.Add("query=up&query=m", "mwv73z14.mwv7401s-0.0")
	now := time.UnixMilli(1795555050000)
	f.Fuzz(func(t *testing.T, raw, id string) {
		args, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		subs, err := parseStream(args, id, now)
		if err != nil {
			if typeOf(err) != "bad_data" {
				t.Fatal(err)
			}
			return
		}
		tr := &sseTransport{from: subs}
		for i := range subs {
			if err := subs[i].Fault(); err != nil {
				t.Fatal(err)
			}
			tr.subs = append(tr.subs, &sub{cursor: int64(subs[i].Resume)})
		}
		again, err := parseCursor(string(tr.appendCursor(nil)), len(subs), now)
		if err != nil {
			t.Fatal(err)
		}
		for i := range subs {
			if again[i].resume != subs[i].Resume || again[i].seen != subs[i].Seen {
				t.Fatalf("got %v, want %v", again, subs)
			}
		}
	})
}

// FuzzSimple: what is accepted of the older form is a request for something.
func FuzzSimple(f *testing.F) {
	f.Add([]byte(`{"action":"subscribe","metric":"orders_total"}`))
	f.Add([]byte(`{"action":"unsubscribe","metric":"{a=\"b\"}"}`))
	f.Add([]byte(`{"action":"subscribe","metric":"a \" \\ \n metric"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := frame.ParseSimple(b); err == nil && (s.Metric == "" || s.Action == "") {
			t.Fatalf("got %+v", s)
		}
	})
}
