package live

import "testing"

func TestParseFrame(t *testing.T) {
	for in, want := range map[string]Frame{
		`{"type":"data","id":"a","t":1763900000.25,"v":[[0,"12.5"],[1,"3"]]}`: {T: 1763900000250, Values: []byte(`[[0,"12.5"],[1,"3"]]`)},
		`{"type":"data","id":"a","t":1763900000,"rev":12,"v":[]}`:             {T: 1763900000000, Rev: 12, Values: []byte(`[]`)},
		`{"type":"data","id":"a","t":1.001,"v":[]}`:                           {T: 1001, Values: []byte(`[]`)},
	} {
		f := Frame{Payload: []byte(in)}
		if err := f.parse(); err != nil || f.T != want.T || f.Rev != want.Rev || string(f.Values) != string(want.Values) || string(f.Type) != "data" {
			t.Errorf("%s: %v %+v %s", in, err, f, f.Values)
		}
	}
	f := Frame{Payload: []byte(`{"type":"ack"}`)}
	if err := f.parse(); err != nil || string(f.Type) != "ack" {
		t.Error(err)
	}
}

// FuzzFrame: nothing a server sends makes the client fall over.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x81\x02{}"))
	f.Add([]byte("\x81\x27" + `{"type":"data","t":1.5,"rev":1,"v":[]}` + "\x89\x00\x81\x7e\x00\x01{"))
	f.Add([]byte("\x81\xff\xff0000000")) // a length that is negative as an int
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &Socket{buf: b, to: len(b)}
		for {
			_, payload, ok := s.next()
			if !ok {
				return
			}
			fr := Frame{Payload: payload}
			_ = fr.parse() // an error is an answer
		}
	})
}
