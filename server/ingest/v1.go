package ingest

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/strandline-db/strandline/shard/model"
)

// decodeV1 reads a prometheus.WriteRequest from d.body. An error means that the
// body as a whole is malformed or too large; single bad series are noted.
func (d *decoder) decodeV1() error {
	b := d.body
	for i := 0; i < len(b); {
		if b[i] == 0x0a {
			from, to := span(b, i+1)
			if to < 0 {
				return fmt.Errorf("%w: time series cut short", ErrMalformed)
			}
			if err := d.seriesV1(b[from:to]); err != nil {
				return err
			}
			i = to
			continue
		}
		f := fields{b: b, i: i}
		if f.next() {
			if err := d.requestFieldV1(&f); err != nil {
				return err
			}
		}
		if f.bad {
			return fmt.Errorf("%w: request", ErrMalformed)
		}
		i = f.i
	}
	return nil
}

func (d *decoder) requestFieldV1(f *fields) error {
	switch {
	case f.num == 1 && f.is(typeBytes):
		return d.seriesV1(f.data)
	case f.num == 3 && f.is(typeBytes):
		return d.metadataV1(f.data)
	}
	return nil
}

// keyRun collects the label fields of a message: in place while they follow one
// another, else as a copy.
type keyRun struct {
	b        []byte
	from, to int
	copied   []byte
}

// label takes the field at b[at:end], which is a label in the usual form.
func (k *keyRun) label(d *decoder, at, end int) error {
	switch {
	case k.copied == nil && k.from == k.to:
		k.from, k.to = at, end
	case k.copied == nil && k.to == at:
		k.to = end
	default:
		return k.odd(d, k.b[at:end])
	}
	return nil
}

// odd takes a label that can't be taken in place. No known sender needs it, so it
// may allocate.
func (k *keyRun) odd(d *decoder, field []byte) error {
	if k.copied == nil {
		k.copied = append(make([]byte, 0, k.to-k.from+len(field)), k.b[k.from:k.to]...)
		if err := d.spend(len(k.copied)); err != nil {
			return err
		}
	}
	k.copied = append(k.copied, field...)
	return d.spend(len(field))
}

func (k *keyRun) bytes() []byte {
	if k.copied != nil {
		return k.copied
	}
	return k.b[k.from:k.to:k.to]
}

func (d *decoder) seriesV1(b []byte) error {
	s := d.begin()
	key := keyRun{b: b}
	for i := 0; i < len(b); {
		tag := b[i]
		if tag != 0x0a && tag != 0x12 {
			next, err := d.seriesFieldV1(b, i, &key)
			if err != nil {
				return err
			}
			i = next
			continue
		}
		from, to := span(b, i+1)
		if to < 0 {
			return fmt.Errorf("%w: time series", ErrMalformed)
		}
		var err error
		if tag == 0x0a {
			err = key.label(d, i, to)
		} else {
			err = d.sample(b[from:to], false)
		}
		if err != nil {
			return err
		}
		i = to
	}
	s.Key = key.bytes()
	if !hasName(s.Key) {
		d.refuse(&s, errNoName())
		return nil
	}
	if d.end(&s) {
		d.checkHistograms(&s)
	}
	return nil
}

// seriesFieldV1 takes the field at b[i], and returns the place behind it.
func (d *decoder) seriesFieldV1(b []byte, i int, key *keyRun) (next int, err error) {
	f := fields{b: b, i: i}
	if f.next() {
		switch {
		case f.num == 1 && f.is(typeBytes): // with a tag of unusual length
			err = key.odd(d, appendField(nil, f.data))
		case f.num == 2 && f.is(typeBytes):
			err = d.sample(f.data, false)
		case f.num == 3 && f.is(typeBytes):
			err = d.exemplarV1(f.data)
		case f.num == 4 && f.is(typeBytes):
			err = d.histogram(f.data, false)
		}
	}
	if err == nil && f.bad {
		err = fmt.Errorf("%w: time series", ErrMalformed)
	}
	return f.i, err
}

// appendField appends body as field 1 of a message.
func appendField(dst, body []byte) []byte {
	dst = append(dst, 0x0a)
	dst = binary.AppendUvarint(dst, uint64(len(body)))
	return append(dst, body...)
}

func (d *decoder) exemplarV1(b []byte) error {
	if err := d.spend(costExemplar); err != nil {
		return err
	}
	var e model.Exemplar
	key := keyRun{b: b}
	f := fields{b: b}
	for at := 0; f.next(); at = f.i {
		switch {
		case f.num == 1 && f.is(typeBytes):
			var err error
			if b[at] == 0x0a {
				err = key.label(d, at, f.i)
			} else {
				err = key.odd(d, appendField(nil, f.data))
			}
			if err != nil {
				return err
			}
		case f.num == 2 && f.is(typeFixed64):
			e.Value = math.Float64frombits(f.v)
		case f.num == 3 && f.is(typeVarint):
			e.T = int64(f.v)
		}
	}
	if f.bad {
		return fmt.Errorf("%w: exemplar", ErrMalformed)
	}
	e.Labels = key.bytes()
	d.batch.Exemplars = append(d.batch.Exemplars, e)
	return nil
}
