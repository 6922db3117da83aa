package frame

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

// FuzzRequest: what is accepted comes back the same from its JSON.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"op":"subscribe","id":"a","query":"up","step":"1s","backfill":"15m"}`, `{"op":"resume","id":"a","query":"up","resume":1763900000.25}`,
		`{"op":"unsubscribe","id":"a"}`, `{"op":"set","subs":[{"id":"a","query":"up","mode":"samples","step":0.25,"applied":"0:12"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if r == nil || len(r.ID) > len(b) {
			t.Fatalf("got %+v", r)
		}
		if err != nil {
			if !errors.Is(err, ErrBad) && !errors.Is(err, ErrUnknownOp) {
				t.Fatal(err)
			}
			return
		}
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRequest(out)
		if r.Subs == nil && again != nil {
			again.Subs = nil
		}
		if err != nil || len(r.Subs) > 0 && !reflect.DeepEqual(r, again) {
			t.Fatalf("%s: got %+v, want %+v: %v", out, again, r, err)
		}
	})
}

// FuzzFrame: whatever a server sends, decoding ends without a panic.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		`{"type":"data","id":"a","t":1763900000.25,"v":[[0,"12.5"],[1,{"count":"5"}]]}`, `{"type":"series","id":"a","series":[[0,{"a":"b"}]]}`,
		`{"type":"heartbeat","now":1,"t":2,"known":{"a":3.001}}`, `{"type":"stale","stale":[1]}`, `{"type":"ack","step":"1s"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := ParseFrame(b)
		if (err == nil) == (fr == nil) || err != nil && !errors.Is(err, ErrBad) {
			t.Fatalf("got %+v %v", fr, err)
		}
	})
}
