package cluster

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// A piece of a series between nodes:
//
//	uvarint floats, flag: start times follow
//	floats times: varint t minus the previous t, value as 8 bytes, [varint start time]
//	uvarint histograms, each: varint t minus the previous t, varint start time, bytes
//	flag: the series goes on in the next piece
//
// Times start from 0. The bytes of a histogram are those of a shard's log.

// pieceOf is where a piece of a series begins.
type pieceOf struct{ floats, hists int }

// putColumns encodes from a place on until room bytes are used; next is where the rest
// begins, and more whether there is any.
func putColumns(dst []byte, c *model.Columns, at pieceOf, room int) (_ []byte, next pieceOf, more bool) {
	end := len(dst) + room
	const each = 2*binary.MaxVarintLen64 + 8 // at most
	floats := min(len(c.T)-at.floats, max(1, room/each))
	hasST := len(c.ST) > 0
	dst = putBool(putUvarints(dst, uint64(floats)), hasST)
	prev := int64(0)
	for i := at.floats; i < at.floats+floats; i++ {
		dst = binary.AppendVarint(dst, c.T[i]-prev)
		prev = c.T[i]
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(c.V[i]))
		if hasST {
			st := int64(0)
			if i < len(c.ST) {
				st = c.ST[i]
			}
			dst = binary.AppendVarint(dst, st)
		}
	}
	next = pieceOf{at.floats + floats, at.hists}
	var hists []byte
	prev = 0
	n := 0
	for next.floats == len(c.T) && next.hists < len(c.Hist) && (n == 0 || len(dst)+len(hists) < end) {
		h := &c.Hist[next.hists]
		hists = binary.AppendVarint(binary.AppendVarint(hists, h.T-prev), h.ST)
		hists = putBytes(hists, engine.AppendHistogram(nil, h))
		prev, next.hists, n = h.T, next.hists+1, n+1
	}
	dst = append(putUvarints(dst, uint64(n)), hists...)
	more = next.floats < len(c.T) || next.hists < len(c.Hist)
	return putBool(dst, more), next, more
}

// columns appends a piece to c.
func (d *decoder) columns(c *model.Columns) (more bool) {
	n, hasST := d.uvarint(), d.bool()
	if n > uint64(len(d.b)/9) {
		d.bad = true
		return false
	}
	had := len(c.T)
	prev := int64(0)
	for ; n > 0 && !d.bad; n-- {
		prev += d.varint()
		c.T, c.V = append(c.T, prev), append(c.V, math.Float64frombits(d.fixed()))
		if hasST {
			for len(c.ST) < had {
				c.ST = append(c.ST, 0)
			}
			c.ST = append(c.ST, d.varint())
			had++
		}
	}
	prev = 0
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		prev += d.varint()
		st := d.varint()
		h, err := engine.DecodeHistogram(d.bytes(), prev, st)
		if err != nil {
			d.bad = true
			return false
		}
		c.Hist = append(c.Hist, h)
	}
	return d.bool()
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) fixed() uint64 {
	if len(d.b) < 8 {
		d.b, d.bad = nil, true
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

// putSelect encodes what to read of which shards.
func putSelect(dst []byte, shards []int, reqs ...*model.SelectRequest) []byte {
	dst = putShards(dst, shards)
	for _, req := range reqs {
		dst = binary.AppendVarint(binary.AppendVarint(dst, req.MinT), req.MaxT)
		dst = putUvarints(dst, uint64(req.MaxSeries), uint64(len(req.Matchers)))
		for _, m := range req.Matchers {
			dst = putBytes(putBytes(putUvarints(dst, uint64(m.Type)), m.Name), m.Value)
		}
	}
	return dst
}

func putShards(dst []byte, shards []int) []byte {
	dst = putUvarints(dst, uint64(len(shards)))
	for _, s := range shards {
		dst = putUvarints(dst, uint64(s))
	}
	return dst
}

// shards decodes shards, each named once: a reader holds each once.
func (d *decoder) shards() (shards []int) {
	seen := map[int]bool{}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		s := d.count()
		d.bad = d.bad || seen[s]
		seen[s] = true
		shards = append(shards, s)
	}
	return shards
}

// selectRequest decodes the shards and the first request.
func (d *decoder) selectRequest() (shards []int, req *model.SelectRequest) {
	return d.shards(), d.request()
}

// selectRequests decodes the shards and all requests, which end the message.
func (d *decoder) selectRequests() (shards []int, reqs []*model.SelectRequest) {
	shards, first := d.selectRequest()
	reqs = append(reqs, first)
	for len(d.b) > 0 && !d.bad {
		reqs = append(reqs, d.request())
	}
	return shards, reqs
}

func (d *decoder) request() *model.SelectRequest {
	req := &model.SelectRequest{MinT: d.varint(), MaxT: d.varint(), MaxSeries: int(d.uvarint())}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		kind := d.uvarint()
		m, err := labels.NewMatcher(labels.MatchType(kind), string(d.bytes()), string(d.bytes()))
		if err != nil || kind > uint64(labels.MatchNotRegexp) { // of which nothing could be asked
			d.bad = true
			return req
		}
		req.Matchers = append(req.Matchers, m)
	}
	return req
}

func putStrings(dst []byte, list []string) []byte {
	dst = putUvarints(dst, uint64(len(list)))
	for _, s := range list {
		dst = putBytes(dst, s)
	}
	return dst
}

func (d *decoder) strings() (list []string) {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		list = append(list, string(d.bytes()))
	}
	return list
}

func putExemplars(dst []byte, list []model.SeriesExemplars) []byte {
	dst = putUvarints(dst, uint64(len(list)))
	for i := range list {
		dst = putBytes(dst, model.AppendKey(nil, list[i].Labels))
		dst = putUvarints(dst, uint64(len(list[i].Exemplars)))
		for _, e := range list[i].Exemplars {
			dst = binary.AppendVarint(dst, e.T)
			dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(e.Value))
			dst = putBytes(dst, e.Labels)
		}
	}
	return dst
}

func (d *decoder) exemplars() (list []model.SeriesExemplars) {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		s := model.SeriesExemplars{Labels: d.labels()}
		for k := d.uvarint(); k > 0 && !d.bad; k-- {
			s.Exemplars = append(s.Exemplars, model.Exemplar{T: d.varint(), Value: math.Float64frombits(d.fixed()), Labels: d.bytes()})
		}
		list = append(list, s)
	}
	return list
}

// labels reads a key.
func (d *decoder) labels() labels.Labels {
	key := d.bytes()
	if d.bad || model.CheckKey(key) != nil {
		d.bad = true
		return labels.EmptyLabels()
	}
	return model.KeyLabels(key)
}
