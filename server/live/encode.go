package live

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"

	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/server/promjson"
)

// maxSeriesBytes is about how much of label sets goes into one frame.
const maxSeriesBytes = 16 << 10

// begin starts a frame about the subscription with this id, which is in JSON already.
func begin(b []byte, kind string, id []byte) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, kind...)
	b = append(b, '"')
	if len(id) > 0 {
		b = append(b, `,"id":`...)
		b = append(b, id...)
	}
	return b
}

func quoteID(id string) []byte { return appendID(nil, id) }

// appendID writes an id in JSON; nothing if it is empty.
func appendID(b []byte, id string) []byte {
	if id == "" {
		return b
	}
	return promjson.AppendHTML(b, id)
}

// ackFrame answers a request; since is what to resume after if nothing comes: 0: not told.
func ackFrame(op string, id []byte, info *qlive.Info, since int64) []byte {
	b := begin(nil, frame.Ack, id)
	b = append(b, `,"op":"`...)
	b = append(b, op...)
	b = append(b, '"')
	if info != nil {
		b = append(b, `,"query":`...)
		b = promjson.AppendHTML(b, info.Query)
		if info.Step > 0 {
			b = append(b, `,"step":"`...)
			b = append(b, frame.Duration(info.Step).String()...)
			b = append(b, '"')
		}
		b = append(b, `,"mode":"`...)
		b = append(b, info.Mode...)
		b = append(b, '"')
	}
	if since != 0 {
		b = append(b, `,"t":`...)
		b = appendTime(b, since)
	}
	return append(b, '}')
}

// errorFrame tells of a failure; ended: there is no such subscription, or no longer.
func errorFrame(op string, id []byte, t int64, err error, ended bool) []byte {
	b := begin(nil, frame.Error, id)
	if op != "" {
		b = append(b, `,"op":`...)
		b = promjson.AppendHTML(b, op)
	}
	if t != 0 {
		b = append(b, `,"t":`...)
		b = appendTime(b, t)
	}
	b = append(b, `,"errorType":"`...)
	b = append(b, typeOf(err)...)
	b = append(b, `","error":`...)
	b = promjson.AppendHTML(b, err.Error())
	if ended {
		b = append(b, `,"ended":true`...)
	}
	return append(b, '}')
}

func drainFrame(reason string) []byte {
	b := begin(nil, frame.Drain, nil)
	b = append(b, `,"reason":`...)
	b = promjson.AppendHTML(b, reason)
	return append(b, '}')
}

// appendSeries writes label sets until the frame is large, and returns how many.
func appendSeries(b, id []byte, defs []qlive.SeriesDef) ([]byte, int) {
	start := len(b)
	b = begin(b, frame.Series, id)
	b = append(b, `,"series":[`...)
	n := 0
	for ; n < len(defs) && (n == 0 || len(b)-start < maxSeriesBytes); n++ {
		if n > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendUint(b, uint64(defs[n].ID), 10)
		b = append(b, ',')
		from := len(b)
		b = promjson.AppendLabels(b, defs[n].Labels)
		if !utf8.Valid(b[from:]) { // a text frame with such would end the connection
			b = append(b[:from], bytes.ToValidUTF8(b[from:], []byte("\ufffd"))...)
		}
		b = append(b, ']')
	}
	return append(b, `]}`...), n
}

// appendData writes a data frame; its larger part is encoded once for all clients.
func appendData(b, id []byte, s *qlive.Step) []byte {
	b = begin(b, frame.Data, id)
	return append(b, s.Encoded(encodeStep)...)
}

// encodeStep is what follows the id in a data frame.
func encodeStep(s *qlive.Step) []byte {
	b := append(appendStep(make([]byte, 0, 64+24*len(s.Values)), s), '}')
	return b[:len(b):len(b)]
}

func appendStep(b []byte, s *qlive.Step) []byte {
	b = append(b, `,"t":`...)
	b = appendTime(b, s.T)
	if s.Rev > 0 {
		b = append(b, `,"rev":`...)
		b = strconv.AppendUint(b, uint64(s.Rev), 10)
	}
	b = append(b, `,"v":[`...)
	for i := range s.Values {
		v := &s.Values[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendUint(b, uint64(v.Series), 10)
		b = append(b, ',')
		b = appendValue(b, v)
		b = append(b, ']')
	}
	return append(b, ']')
}

func appendValue(b []byte, v *qlive.Value) []byte {
	if v.H != nil {
		return promjson.AppendHistogram(b, v.H)
	}
	return promjson.AppendFloat(b, v.V)
}

func appendStale(b, id []byte, t int64, series []uint32) []byte {
	b = begin(b, frame.Stale, id)
	b = append(b, `,"t":`...)
	b = appendTime(b, t)
	b = append(b, `,"stale":[`...)
	for i, n := range series {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	return append(b, `]}`...)
}

func appendDropped(b, id []byte, d qlive.Dropped) []byte {
	b = begin(b, frame.Dropped, id)
	b = append(b, `,"count":`...)
	b = strconv.AppendInt(b, d.Count, 10)
	b = append(b, `,"from":`...)
	b = appendTime(b, d.From)
	b = append(b, `,"to":`...)
	b = appendTime(b, d.To)
	return append(b, '}')
}

// known is up to when all of a subscription has been sent.
type known struct {
	id []byte
	t  int64
}

// appendHeartbeat writes the least of the times, and each.
func appendHeartbeat(b []byte, now time.Time, all []known) []byte {
	b = begin(b, frame.Heartbeat, nil)
	b = append(b, `,"now":`...)
	b = appendTime(b, now.UnixMilli())
	if len(all) > 0 {
		least := all[0].t
		for _, k := range all {
			least = min(least, k.t)
		}
		b = append(b, `,"t":`...)
		b = appendTime(b, least)
	}
	sep := `,"known":{`
	for _, k := range all {
		b = append(b, sep...)
		sep = `,`
		b = append(b, k.id...)
		b = append(b, ':')
		b = appendTime(b, k.t)
	}
	if sep == `,` {
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendTime writes seconds with as many decimals as they need, up to milliseconds.
func appendTime(b []byte, ms int64) []byte {
	b = promjson.AppendTime(b, ms)
	if ms%1000 != 0 {
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return b
}
