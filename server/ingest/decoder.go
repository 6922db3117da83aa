package ingest

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/strandline-db/strandline/shard/model"
)

// What an element of the batch is reckoned to cost in memory, bytes, against the
// budget of a request: a body of two-byte messages may not unfold without bound.
const (
	costSample    = 16
	costSymbol    = 16
	costExemplar  = 48
	costMetadata  = 96
	costHistogram = 256
	// unfold is how many times MaxBodyBytes a request's columns may take.
	unfold = 4
	// keepBytes is the most memory of one kind that a pooled decoder keeps.
	keepBytes = 4 << 20
)

// nameLabel is how a key's first label begins when it is the metric's name.
const nameLabel = "\x0a\x08__name__\x12"

const metricName = "__name__"

// decoder turns one body into a batch. It is pooled; its memory is reused.
type decoder struct {
	batch  model.Batch
	body   []byte // decompressed; the batch aliases it
	arena  []byte // keys that don't lie in body in one piece
	budget int    // bytes that columns may still take

	symbols []string // alias body
	refs    []uint32
	eRefs   []uint32
	seen    map[metaRef]struct{}

	// bad counts series that were refused here in whole or part; firstBad is why. partly are
	// those of which the batch has the rest, by their place in it, ascending.
	bad      int
	firstBad error
	partly   []int
	noted    bool // the series that was begun last is counted
}

// reset readies d for a body that may unfold into budget bytes.
func (d *decoder) reset(budget int) {
	d.batch.Reset()
	clear(d.symbols)
	clear(d.seen)
	d.symbols, d.refs, d.eRefs, d.arena = d.symbols[:0], d.refs[:0], d.eRefs[:0], d.arena[:0]
	d.budget, d.bad, d.firstBad, d.partly = budget, 0, nil, d.partly[:0]
}

// oversized reports whether d has grown too large to be kept between requests.
func (d *decoder) oversized() bool {
	return cap(d.body) > keepBytes || cap(d.arena) > keepBytes || cap(d.symbols) > keepBytes/16 ||
		cap(d.batch.T) > keepBytes/8 || cap(d.batch.Series) > keepBytes/64 || cap(d.batch.Hist) > keepBytes/32 ||
		cap(d.batch.Exemplars) > keepBytes/48 || cap(d.batch.Metadata) > keepBytes/64 || len(d.seen) > keepBytes/128 || cap(d.partly) > keepBytes/8
}

// spend takes n bytes off the budget.
func (d *decoder) spend(n int) error {
	if d.budget -= n; d.budget < 0 {
		return fmt.Errorf("%w: it unfolds to more than %d times the allowed size", ErrTooLarge, unfold)
	}
	return nil
}

// begin starts a series at the ends of the columns.
func (d *decoder) begin() model.BatchSeries {
	b := &d.batch
	d.noted = false
	return model.BatchSeries{
		From: len(b.T), To: len(b.T), HFrom: len(b.Hist), HTo: len(b.Hist), EFrom: len(b.Exemplars), ETo: len(b.Exemplars),
	}
}

// end closes a series with what the columns gained since begin. A series without
// anything in it leaves no entry; end reports whether there is one.
func (d *decoder) end(s *model.BatchSeries) bool {
	b := &d.batch
	s.To, s.HTo, s.ETo = len(b.T), len(b.Hist), len(b.Exemplars)
	if s.To == s.From && s.HTo == s.HFrom && s.ETo == s.EFrom {
		return false
	}
	b.Series = append(b.Series, *s)
	return true
}

// refuse drops a series that was begun and counts it.
func (d *decoder) refuse(s *model.BatchSeries, err error) {
	b := &d.batch
	b.T, b.V, b.Hist, b.Exemplars = b.T[:s.From], b.V[:s.From], b.Hist[:s.HFrom], b.Exemplars[:s.EFrom]
	b.ST = b.ST[:min(len(b.ST), s.From)]
	d.note(s.Key, err)
}

// note counts the series that was begun last, with this key, as one of which something was refused.
func (d *decoder) note(key []byte, err error) {
	if d.noted {
		return
	}
	d.noted = true
	if d.bad++; d.firstBad == nil {
		d.firstBad = fmt.Errorf("series %s: %w", keyText(key), err)
	}
}

// add appends a sample. ST stays empty until a sample has a start timestamp.
func (d *decoder) add(t int64, bits uint64, st int64) {
	b := &d.batch
	b.T = append(b.T, t)
	b.V = append(b.V, math.Float64frombits(bits))
	if st == 0 && len(b.ST) == 0 {
		return
	}
	for len(b.ST) < len(b.T)-1 {
		b.ST = append(b.ST, 0)
	}
	b.ST = append(b.ST, st)
}

// sample reads a Sample message. Senders write the value, then the time.
func (d *decoder) sample(b []byte, v2 bool) error {
	if err := d.spend(costSample); err != nil {
		return err
	}
	if len(b) > 10 && b[0] == 0x09 && b[9] == 0x10 {
		if t, end := uvarint(b, 10); end == len(b) {
			d.add(int64(t), binary.LittleEndian.Uint64(b[1:]), 0)
			return nil
		}
	}
	var bits, t, st uint64
	f := fields{b: b}
	for f.next() {
		switch {
		case f.num == 1 && f.is(typeFixed64):
			bits = f.v
		case f.num == 2 && f.is(typeVarint):
			t = f.v
		case f.num == 3 && v2 && f.is(typeVarint):
			st = f.v
		}
	}
	if f.bad {
		return fmt.Errorf("%w: sample", ErrMalformed)
	}
	d.add(int64(t), bits, int64(st))
	return nil
}

// hasName reports whether a key names its metric.
func hasName(key []byte) bool {
	if len(key) < 2 {
		return false
	}
	at := 2
	if key[1] >= 0x80 {
		at = 3
	}
	if end := at + len(nameLabel); len(key) > end && string(key[at:end]) == nameLabel {
		return key[end] != 0
	}
	for f := (fields{b: key}); f.next() && f.typ == typeBytes; {
		var name, value []byte
		for l := (fields{b: f.data}); l.next(); {
			switch l.num {
			case 1:
				name = l.data
			case 2:
				value = l.data
			}
		}
		if string(name) == metricName {
			return len(value) > 0
		}
	}
	return false
}

// errNoName is the fault of a series without a metric name.
func errNoName() error { return fmt.Errorf("%w: the metric name is missing", model.ErrBadLabels) }

// maxKeyText bounds a key in a message, bytes.
const maxKeyText = 512

// keyText is a key as people write it, as far as it can be read.
func keyText(key []byte) string {
	var sb strings.Builder
	sb.WriteByte('{')
	for rest := key; len(rest) > 0 && sb.Len() < maxKeyText; {
		name, value, next, ok := model.NextKeyLabel(rest)
		if !ok {
			sb.WriteString("...")
			break
		}
		if len(rest) != len(key) {
			sb.WriteString(", ")
		}
		fmt.Fprintf(&sb, "%s=%q", shorten(name), shorten(value))
		rest = next
	}
	sb.WriteByte('}')
	return sb.String()
}

func shorten(b []byte) []byte { return b[:min(len(b), maxKeyText/4)] }
