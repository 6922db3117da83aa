package frame

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Errors of decoding, for errors.Is.
var (
	// ErrBad: the frame is not JSON of the right form.
	ErrBad = errors.New("bad frame")
	// ErrUnknownOp: there is no such operation.
	ErrUnknownOp = errors.New("unknown op: want subscribe, resume, unsubscribe or set")
)

// maxID is the longest name of a subscription, in bytes.
const maxID = 256

// ParseRequest decodes what a client sent. What it returns beside an error holds the
// id and the op, as far as they could be read. The errors are ErrBad or ErrUnknownOp.
func ParseRequest(b []byte) (*Request, error) {
	r := &Request{}
	if err := strict(b, r); err != nil {
		var partial struct{ Op, ID string }
		if json.Unmarshal(b, &partial) == nil && len(partial.ID) <= maxID && len(partial.Op) <= maxID {
			r.Op, r.ID = partial.Op, partial.ID
		}
		return r, err
	}
	return r, r.check()
}

func (r *Request) check() error {
	switch r.Op {
	case OpSubscribe, OpResume:
		if r.Op == OpResume && r.Resume == 0 {
			return fmt.Errorf(`%w: op resume needs "resume", the last seen time`, ErrBad)
		}
		if r.Subs != nil {
			return fmt.Errorf(`%w: "subs" is for op set`, ErrBad)
		}
		return r.Sub.Check()
	case OpUnsubscribe:
		if r.ID == "" {
			return fmt.Errorf(`%w: "id" is missing`, ErrBad)
		}
		return nil
	case OpSet:
		return r.checkSet()
	}
	if len(r.Op) > maxID {
		r.Op = ""
	}
	return ErrUnknownOp
}

func (r *Request) checkSet() error {
	if r.Sub != (Sub{}) {
		return fmt.Errorf(`%w: op set takes "subs" alone`, ErrBad)
	}
	seen := map[string]bool{}
	for i := range r.Subs {
		if err := r.Subs[i].Check(); err != nil {
			return fmt.Errorf("subs[%d]: %w", i, err)
		}
		if seen[r.Subs[i].ID] {
			return fmt.Errorf("%w: subs[%d]: the id is there twice", ErrBad, i)
		}
		seen[r.Subs[i].ID] = true
	}
	return nil
}

// Check reports what is wrong with the subscription, as ErrBad.
func (s *Sub) Check() error {
	switch {
	case s.ID == "":
		return fmt.Errorf(`%w: "id" is missing`, ErrBad)
	case len(s.ID) > maxID:
		s.ID = ""
		return fmt.Errorf("%w: the id is longer than %d bytes", ErrBad, maxID)
	case s.Query == "":
		return fmt.Errorf(`%w: "query" is missing`, ErrBad)
	case s.Mode != "" && s.Mode != ModeSamples:
		return fmt.Errorf(`%w: "mode" is left out or %q`, ErrBad, ModeSamples)
	case s.Resume < 0:
		return fmt.Errorf(`%w: "resume" lies before 1970`, ErrBad)
	}
	return nil
}

// Simple is the request of the older form: a metric's name, or a selector.
type Simple struct {
	Action string `json:"action"`
	Metric string `json:"metric"`
}

// ParseSimple decodes a request of the older form. The errors are ErrBad or ErrUnknownOp.
func ParseSimple(b []byte) (Simple, error) {
	var s Simple
	if err := strict(b, &s); err != nil {
		return s, err
	}
	switch {
	case s.Action != OpSubscribe && s.Action != OpUnsubscribe:
		return s, fmt.Errorf(`%w: "action" is subscribe or unsubscribe`, ErrUnknownOp)
	case s.Metric == "":
		return s, fmt.Errorf(`%w: "metric" is missing`, ErrBad)
	}
	return s, nil
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrBad, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: more than one JSON value", ErrBad)
	}
	return nil
}

// ParseFrame decodes what a server sent; the error is ErrBad.
func ParseFrame(b []byte) (*Frame, error) {
	f := &Frame{}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	if f.Type == "" {
		return nil, fmt.Errorf("%w: no type", ErrBad)
	}
	return f, nil
}
