package frame

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Errors of decoding, for errors.Is.
var (
	// ErrBad: the frame is not JSON of the right form.
	ErrBad = errors.New("bad frame")
	// ErrUnknownOp: there is no such operation.
	ErrUnknownOp = errors.New("unknown operation")
)

// maxID is the longest name of a subscription, in bytes.
const maxID = 256

// ParseRequest decodes what a client sent. What it returns beside an error holds the
// id and the op, as far as they could be read. The errors are ErrBad or ErrUnknownOp.
func ParseRequest(b []byte) (*Request, error) {
	r := &Request{}
	if err := strict(b, r, "op, id, query, step, mode, backfill, resume, seen, applied and subs"); err != nil {
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
		if err := r.Fault(); err != nil {
			return fmt.Errorf("%w: %w", ErrBad, err)
		}
		return nil
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
	return fmt.Errorf(`%w: "op" is subscribe, resume, unsubscribe or set`, ErrUnknownOp)
}

func (r *Request) checkSet() error {
	if r.Sub != (Sub{}) {
		return fmt.Errorf(`%w: op set takes "subs" alone`, ErrBad)
	}
	seen := map[string]bool{}
	for i := range r.Subs {
		if err := r.Subs[i].Fault(); err != nil {
			return fmt.Errorf("%w: subs[%d]: %w", ErrBad, i, err)
		}
		if seen[r.Subs[i].ID] {
			return fmt.Errorf("%w: subs[%d]: the id is there twice", ErrBad, i)
		}
		seen[r.Subs[i].ID] = true
	}
	return nil
}

// Fault tells what is wrong with the subscription, in words; nil: nothing is.
func (s *Sub) Fault() error {
	switch {
	case s.ID == "":
		return errors.New(`"id" is missing`)
	case len(s.ID) > maxID:
		s.ID = ""
		return fmt.Errorf(`"id" is longer than %d bytes`, maxID)
	case s.Query == "":
		return errors.New(`"query" is missing`)
	case s.Mode != "" && s.Mode != ModeSamples:
		return fmt.Errorf(`"mode" must be left out or %q`, ModeSamples)
	case s.Resume < 0 || s.Seen < 0:
		return errors.New(`"resume" or "seen" lies before 1970`)
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
	if err := strict(b, &s, "action and metric"); err != nil {
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

// strict decodes one JSON object that has no fields but those known.
func strict(b []byte, v any, known string) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%w: %q can't be a JSON %s", ErrBad, cmp.Or(strings.TrimPrefix(wrong.Field, "Sub."), "the message"), wrong.Value)
		}
		text := strings.TrimPrefix(err.Error(), "json: ")
		if strings.HasPrefix(text, "unknown field") {
			text += "; known are " + known
		}
		return fmt.Errorf("%w: %s", ErrBad, text)
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
