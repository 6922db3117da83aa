package partial

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Op is an aggregation that can be done in parts.
type Op uint8

// The aggregations, with their numbers on the wire.
const (
	Sum Op = iota + 1
	Avg
	Min
	Max
	Count
	Group
)

// maxSteps is the most steps of a request; the HTTP API allows 11,000.
const maxSteps = 1 << 20

// Request asks for an aggregation over an expression that can be worked out for each
// series by itself.
type Request struct {
	Op Op
	// Grouping are the labels of by or without, sorted.
	Grouping []string
	Without  bool
	// Text is the query up to the end of the expression, with spaces before it in place of
	// what is not part of it, so that positions in it are those in the query.
	Text string
	// Start, End and Step are those of the query; Step 0: an instant. The times are Plain.
	Start, End time.Time
	Step       time.Duration
	// Once: only the first step counts, the others are like it.
	Once            bool
	Lookback        time.Duration
	StartTimestamps bool // rate() and kin use start timestamps
	// Metric is the name of all series if the expression drops names; it then must not
	// meet series that would become one.
	Metric string
	// ReplicaLabel is that of pairs of senders, whose series are to be read as one: a node
	// that can't tell that it has both senders' must have no series with it. "": series
	// are read as they are stored.
	ReplicaLabel string
	// MaxSeries is the most series that a node may select. 0: no limit.
	MaxSeries int
}

// Steps is how many points a group has at most.
func (r *Request) Steps() int {
	if r.Once || r.Step == 0 {
		return 1
	}
	return int((r.End.UnixMilli()-r.Start.UnixMilli())/r.Step.Milliseconds()) + 1
}

// Plain tells whether Prometheus' engine takes a time for the millisecond that it lies in.
// It counts nanoseconds, which overflow before 1678 and after 2262, and rounds up before 1970.
func Plain(t time.Time) bool { return t.UnixNano()/int64(time.Millisecond) == t.UnixMilli() }

// Append encodes the request.
func (r *Request) Append(dst []byte) []byte {
	dst = append(dst, version, byte(r.Op))
	dst = putBools(dst, r.Without, r.Once, r.StartTimestamps)
	dst = putUvarint(dst, uint64(len(r.Grouping)))
	for _, name := range r.Grouping {
		dst = putString(dst, name)
	}
	dst = putTime(putTime(putString(dst, r.Text), r.Start), r.End)
	dst = putUvarint(putUvarint(dst, uint64(r.Step)), uint64(r.Lookback))
	return putUvarint(putString(putString(dst, r.Metric), r.ReplicaLabel), uint64(r.MaxSeries))
}

// ParseRequest decodes a request. The error is ErrMalformed.
func ParseRequest(b []byte) (*Request, error) {
	d := &decoder{b: b}
	if v := d.byte(); v != version {
		return nil, fmt.Errorf("%w: version %d", ErrMalformed, v)
	}
	r := &Request{Op: Op(d.byte())}
	r.Without, r.Once, r.StartTimestamps = d.bools()
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		r.Grouping = append(r.Grouping, d.string())
	}
	r.Text, r.Start, r.End = d.string(), d.time(), d.time()
	r.Step, r.Lookback = time.Duration(d.uvarint()), time.Duration(d.uvarint())
	r.Metric, r.ReplicaLabel, r.MaxSeries = d.string(), d.string(), int(d.uvarint())
	if err := d.end(); err != nil {
		return nil, err
	}
	switch {
	case r.Op < Sum || r.Op > Group, !slices.IsSorted(r.Grouping), r.Lookback <= 0, r.MaxSeries < 0,
		r.Step < 0, r.Step > 0 && r.Step < time.Millisecond, r.End.Before(r.Start),
		r.Step == 0 && !r.End.Equal(r.Start), !Plain(r.Start), !Plain(r.End):
		return nil, ErrMalformed
	case r.Step > 0 && uint64(r.End.UnixMilli()-r.Start.UnixMilli())/uint64(r.Step.Milliseconds()) >= maxSteps:
		return nil, fmt.Errorf("%w: too many steps", ErrMalformed)
	}
	return r, nil
}

// group returns the labels of the group that a series belongs to, as Prometheus' engine does.
func (r *Request) group(b *labels.Builder, of labels.Labels) labels.Labels {
	switch {
	case r.Without:
		b.Reset(of)
		return b.Del(r.Grouping...).Labels()
	case len(r.Grouping) > 0:
		b.Reset(of)
		return b.Keep(r.Grouping...).Labels()
	}
	return labels.EmptyLabels()
}

// groupKey appends to buf what tells the series' group from others.
func (r *Request) groupKey(buf []byte, of labels.Labels) []byte {
	switch {
	case r.Without:
		return of.BytesWithoutLabels(buf, r.Grouping...)
	case len(r.Grouping) > 0:
		return of.BytesWithLabels(buf, r.Grouping...)
	}
	return buf[:0]
}
