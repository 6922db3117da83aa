package cluster

import (
	"encoding/binary"
	"math"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// A feed of shards at another node:
//
//	kindFeed:      uvarint number (the asker's choice, random), uvarint buffer, the shards,
//	               matchers and most series as in kindSelect; flag, or nothing: it goes on where
//	               another has ended
//	   answer:     flag: too many series match; uvarint the node's life
//	kindFeedPoll:  uvarint number
//	   answer:     flag: too many series match; uvarint the last nudge that it covers; batch
//	kindFeedNudge: uvarint number, uvarint nudge, which ascends
//	kindFeedClose: uvarint number
//
//	batch:  uvarint series, each: uvarint number, key
//	        uvarint samples, each: uvarint series, varint t minus the previous t, varint start
//	        time, flag: a histogram follows; 8 bytes, or the bytes of a histogram
//	        varint cut, uvarint lost, flag: reset
//	        uvarint shards, each: uvarint number, uvarint index applied
//
// A series' key comes once in a feed, before its first sample.

// maxFeedBytes bounds the samples of one answer; what goes past it is lost to the feed.
const maxFeedBytes = 32 << 20

func putFeedBatch(dst []byte, b *model.FeedBatch, room int) []byte {
	dst = putUvarints(dst, uint64(len(b.Series)))
	for i := range b.Series {
		dst = putBytes(putUvarints(dst, uint64(b.Series[i].ID)), model.AppendKey(nil, b.Series[i].Labels))
	}
	var samples []byte
	n, prev := 0, int64(0)
	for ; n < len(b.Samples) && len(samples) < room; n++ {
		x := &b.Samples[n]
		samples = putUvarints(samples, uint64(x.Series))
		samples = binary.AppendVarint(binary.AppendVarint(samples, x.T-prev), x.ST)
		prev = x.T
		if samples = putBool(samples, x.Hist != nil); x.Hist != nil {
			samples = putBytes(samples, engine.AppendHistogram(nil, x.Hist))
		} else {
			samples = binary.LittleEndian.AppendUint64(samples, math.Float64bits(x.V))
		}
	}
	dst = append(putUvarints(dst, uint64(n)), samples...)
	dst = binary.AppendVarint(dst, b.Cut)
	dst = putBool(putUvarints(dst, uint64(b.Lost)+uint64(len(b.Samples)-n)), b.Reset)
	dst = putUvarints(dst, uint64(len(b.Applied)))
	for _, a := range b.Applied {
		dst = putUvarints(dst, uint64(a.Shard), a.Index)
	}
	return dst
}

func (d *decoder) feedBatch(b *model.FeedBatch) {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		b.Series = append(b.Series, model.FeedSeries{ID: d.number(), Labels: d.labels()})
	}
	prev := int64(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		x := model.FeedSample{Series: d.number()}
		prev += d.varint()
		x.T, x.ST = prev, d.varint()
		if d.bool() {
			h, err := engine.DecodeHistogram(d.bytes(), x.T, x.ST)
			if err != nil {
				d.bad = true
				return
			}
			x.Hist = &h
		} else {
			x.V = math.Float64frombits(d.fixed())
		}
		b.Samples = append(b.Samples, x)
	}
	b.Cut = d.varint()
	lost := d.uvarint()
	if lost > math.MaxInt64 {
		d.bad = true
		return
	}
	b.Lost, b.Reset = int64(lost), d.bool()
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		b.Applied = append(b.Applied, model.ShardIndex{Shard: d.count(), Index: d.uvarint()})
	}
}

// number reads the number of a series.
func (d *decoder) number() uint32 {
	v := d.uvarint()
	if v > math.MaxUint32 {
		d.bad = true
	}
	return uint32(v)
}
