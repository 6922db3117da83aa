package ingest

import (
	"fmt"
	"math"

	"github.com/strandline-db/strandline/shard/model"
)

// decodeV2 reads an io.prometheus.write.v2.Request from d.body; see decodeV1.
func (d *decoder) decodeV2() error {
	if err := d.readSymbols(); err != nil {
		return err
	}
	f := fields{b: d.body}
	for f.next() {
		if f.num != 5 || !f.is(typeBytes) {
			continue
		}
		if err := d.seriesV2(f.data); err != nil {
			return err
		}
	}
	if f.bad {
		return fmt.Errorf("%w: request", ErrMalformed)
	}
	return nil
}

// readSymbols gathers the table first, since its place in the message is free.
func (d *decoder) readSymbols() error {
	f := fields{b: d.body}
	for f.next() {
		if f.num != 4 || !f.is(typeBytes) {
			continue
		}
		if err := d.spend(costSymbol); err != nil {
			return err
		}
		d.symbols = append(d.symbols, view(f.data))
	}
	if f.bad {
		return fmt.Errorf("%w: request", ErrMalformed)
	}
	if len(d.symbols) > 0 && d.symbols[0] != "" {
		return fmt.Errorf("%w: the first symbol must be empty", ErrMalformed)
	}
	return nil
}

func (d *decoder) seriesV2(b []byte) error {
	s := d.begin()
	d.refs, d.eRefs = d.refs[:0], d.eRefs[:0]
	var meta metaRef
	var hasMeta bool
	var badExemplar error
	f := fields{b: b}
	for f.next() {
		var err error
		switch {
		case f.num == 1:
			d.refs, err = appendRefs(d, d.refs, &f)
		case f.num == 2 && f.is(typeBytes):
			err = d.sample(f.data, true)
		case f.num == 3 && f.is(typeBytes):
			err = d.histogram(f.data, true)
		case f.num == 4 && f.is(typeBytes):
			var bad error
			if bad, err = d.exemplarV2(f.data); bad != nil {
				badExemplar = bad
			}
		case f.num == 5 && f.is(typeBytes):
			hasMeta = true
			meta.read(&f)
		}
		if err != nil {
			return err
		}
	}
	if f.bad {
		return fmt.Errorf("%w: time series", ErrMalformed)
	}
	return d.finishV2(&s, &meta, hasMeta, badExemplar)
}

// finishV2 gives a series that was read its key and metadata, or refuses it.
func (d *decoder) finishV2(s *model.BatchSeries, meta *metaRef, hasMeta bool, badExemplar error) error {
	key, name, bad, err := d.keyV2(d.refs)
	if err != nil {
		return err
	}
	s.Key = key
	switch {
	case bad != nil:
	case name == 0 || d.symbols[name] == "":
		bad = errNoName()
	case hasMeta && (int(meta.help) >= len(d.symbols) || int(meta.unit) >= len(d.symbols)):
		bad = fmt.Errorf("%w: metadata refers to a symbol beyond the %d there are", model.ErrBadLabels, len(d.symbols))
	}
	if bad != nil {
		d.refuse(s, bad)
		return nil
	}
	if badExemplar != nil {
		d.note(key, badExemplar)
	}
	if !d.end(s) {
		if badExemplar == nil {
			d.note(key, fmt.Errorf("%w: there is no sample, histogram or exemplar", model.ErrBadSample))
		}
		return nil
	}
	d.checkHistograms(s)
	if hasMeta {
		meta.name = name
		return d.addMetadataV2(meta)
	}
	return nil
}

// keyV2 puts a key together in the arena. name is the reference of the metric's
// name, or 0. bad is a fault of this series alone.
func (d *decoder) keyV2(refs []uint32) (key []byte, name uint32, bad, err error) {
	if len(refs)%2 != 0 {
		return nil, 0, fmt.Errorf("%w: an odd number of label references", model.ErrBadLabels), nil
	}
	start := len(d.arena)
	for i := 0; i < len(refs); i += 2 {
		n, v := refs[i], refs[i+1]
		if int(max(n, v)) >= len(d.symbols) {
			return nil, 0, fmt.Errorf("%w: label reference %d is beyond the %d symbols", model.ErrBadLabels, max(n, v), len(d.symbols)), nil
		}
		ns, vs := d.symbols[n], d.symbols[v]
		if err := d.spend(len(ns) + len(vs)); err != nil {
			return nil, 0, nil, err
		}
		d.arena = model.AppendKeyLabel(d.arena, ns, vs)
		if vs != "" && ns == metricName {
			name = v
		}
	}
	return d.arena[start:len(d.arena):len(d.arena)], name, nil, nil
}

// appendRefs reads uint32 references, packed or one a field.
func appendRefs(d *decoder, dst []uint32, f *fields) ([]uint32, error) {
	if f.typ == typeVarint {
		return append(dst, uint32(f.v)), nil
	}
	if !f.is(typeBytes) {
		return dst, nil
	}
	for i := 0; i < len(f.data); {
		v, next := uvarint(f.data, i)
		if next < 0 {
			return dst, fmt.Errorf("%w: label references", ErrMalformed)
		}
		dst, i = append(dst, uint32(v)), next
	}
	return dst, nil
}

// exemplarV2 reads an Exemplar message. bad is a fault of this exemplar alone.
func (d *decoder) exemplarV2(b []byte) (bad, err error) {
	if err := d.spend(costExemplar); err != nil {
		return nil, err
	}
	var e model.Exemplar
	d.eRefs = d.eRefs[:0]
	f := fields{b: b}
	for f.next() {
		switch {
		case f.num == 1:
			if d.eRefs, err = appendRefs(d, d.eRefs, &f); err != nil {
				return nil, err
			}
		case f.num == 2 && f.is(typeFixed64):
			e.Value = math.Float64frombits(f.v)
		case f.num == 3 && f.is(typeVarint):
			e.T = int64(f.v)
		}
	}
	if f.bad {
		return nil, fmt.Errorf("%w: exemplar", ErrMalformed)
	}
	if e.Labels, _, bad, err = d.keyV2(d.eRefs); bad == nil && err == nil {
		d.batch.Exemplars = append(d.batch.Exemplars, e)
	}
	return bad, err
}

// read takes the Metadata message in f; a later one in the same series is merged
// into it.
func (m *metaRef) read(f *fields) {
	g := fields{b: f.data}
	for g.next() {
		switch {
		case g.num == 1 && g.is(typeVarint):
			m.typ = g.v
		case g.num == 3 && g.is(typeVarint):
			m.help = uint32(g.v)
		case g.num == 4 && g.is(typeVarint):
			m.unit = uint32(g.v)
		}
	}
	f.bad = f.bad || g.bad
}

// addMetadataV2 keeps metadata that says something, once a request.
func (d *decoder) addMetadataV2(m *metaRef) error {
	if m.typ == 0 && d.symbols[m.help] == "" && d.symbols[m.unit] == "" {
		return nil
	}
	if _, ok := d.seen[*m]; ok {
		return nil
	}
	if err := d.spend(costMetadata); err != nil {
		return err
	}
	d.seen[*m] = struct{}{}
	typ := metadataType(m.typ)
	d.batch.Metadata = append(d.batch.Metadata, model.Metadata{
		Metric: familyName(d.symbols[m.name], typ), Type: typ, Help: d.symbols[m.help], Unit: d.symbols[m.unit],
	})
	return nil
}
