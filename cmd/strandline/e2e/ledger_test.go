package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"
)

// entry is one sample of the ledger.
type entry struct {
	bits  uint64
	acked bool
}

// ledger records, outside the server, what was sent and what was acknowledged. Series are named by the values
// of the labels writer and n. Safe for concurrent use.
type ledger struct {
	mu struct {
		sync.Mutex
		series map[string]map[int64]entry
		acked  int
		deaf   bool // acknowledgements do not count
	}
}

func newLedger() *ledger {
	l := &ledger{}
	l.mu.series = map[string]map[int64]entry{}
	return l
}

// request makes one sample a series for writer at ms and notes it as sent; done notes the acknowledgement.
func (l *ledger) request(writer, series int, ms int64) (body []byte, done func()) {
	var raw []byte
	keys := make([]string, series)
	l.mu.Lock()
	for n := range series {
		keys[n] = fmt.Sprintf("%d/%d", writer, n)
		v := value(writer, n, ms)
		if l.mu.series[keys[n]] == nil {
			l.mu.series[keys[n]] = map[int64]entry{}
		}
		l.mu.series[keys[n]][ms] = entry{bits: math.Float64bits(v)}
		raw = field(raw, 1, encodeSeries(writer, n, v, ms))
	}
	l.mu.Unlock()
	return snappy.Encode(nil, raw), func() { l.acknowledge(keys, ms) }
}

// encodeSeries encodes a prometheus.TimeSeries by hand: the generated code leaves out a value of -0.
func encodeSeries(writer, n int, v float64, ms int64) []byte {
	var out []byte
	for _, l := range [][2]string{{"__name__", "ledger"}, {"n", strconv.Itoa(n)}, {"writer", strconv.Itoa(writer)}} {
		out = field(out, 1, field(field(nil, 1, []byte(l[0])), 2, []byte(l[1])))
	}
	sample := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(v))
	sample = protowire.AppendVarint(protowire.AppendTag(sample, 2, protowire.VarintType), uint64(ms))
	return field(out, 2, sample)
}

// field appends one length-delimited protobuf field.
func field(dst []byte, number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, number, protowire.BytesType), content)
}

func (l *ledger) acknowledge(keys []string, ms int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.deaf {
		return
	}
	for _, k := range keys {
		e := l.mu.series[k][ms]
		e.acked = true
		l.mu.series[k][ms] = e
	}
	l.mu.acked += len(keys)
}

// hear says whether acknowledgements count from now on.
func (l *ledger) hear(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.deaf = !yes
}

func (l *ledger) acked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.acked
}

// value is a finite number whose bits depend on everything that names it; every eighth is special.
func value(writer, n int, ms int64) float64 {
	h := uint64(ms)*0x9e3779b97f4a7c15 ^ uint64(writer)<<48 ^ uint64(n)*0xbf58476d1ce4e5b9
	h ^= h >> 31
	switch h % 32 {
	case 0:
		return math.Copysign(0, -1)
	case 1:
		return math.Inf(1)
	case 2:
		return math.SmallestNonzeroFloat64
	case 3:
		return math.MaxFloat64
	}
	return float64(h%1_000_003) / 1000
}

// post sends a remote-write 1.0 body and returns status and text.
func post(ctx context.Context, client *http.Client, base, contentType string, body []byte) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "snappy")
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	return res.StatusCode, string(text), err
}

type matrix []struct {
	Metric map[string]string
	Values [][2]json.RawMessage
}

// query asks the API and returns the result of a successful answer.
func query(ctx context.Context, base, path string, params url.Values, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/"+path+"?"+params.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var body struct {
		Status, Error string
		Data          struct{ Result json.RawMessage }
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		return err
	}
	if body.Status != "success" {
		return fmt.Errorf("%s: %s", res.Status, body.Error)
	}
	return json.Unmarshal(body.Data.Result, into)
}

// check reads everything of each writer back and wants every acknowledged sample once, with its bits, and
// nothing that was never sent.
func (l *ledger) check(t *testing.T, base string, from, to int64) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	writers := map[string]bool{}
	for k := range l.mu.series {
		w, _, _ := bytes.Cut([]byte(k), []byte("/"))
		writers[string(w)] = true
	}
	stored := map[string]map[int64]uint64{}
	for _, w := range slices.Sorted(maps.Keys(writers)) {
		if err := readBack(t.Context(), base, w, from, to, stored); err != nil {
			t.Fatal(err)
		}
	}
	lost, wrong, phantom := 0, 0, 0
	for k, samples := range l.mu.series {
		for ms, e := range samples {
			if bits, ok := stored[k][ms]; e.acked && ms >= from && ms <= to && !ok {
				lost++
			} else if ok && bits != e.bits {
				wrong++
			}
		}
	}
	for k, samples := range stored {
		for ms := range samples {
			if _, ok := l.mu.series[k][ms]; !ok {
				phantom++
			}
		}
	}
	if lost+wrong+phantom > 0 {
		t.Fatalf("%d acknowledged: %d lost, %d with other bits, %d phantom", l.mu.acked, lost, wrong, phantom)
	}
}

// readWindow is how many milliseconds of a writer's samples are read at once.
const readWindow = 20_000

// readBack adds one writer's samples in [from, to] to stored, and fails on a repeated timestamp.
func readBack(ctx context.Context, base, writer string, from, to int64, stored map[string]map[int64]uint64) error {
	for ; from <= to; from += readWindow {
		end := min(to, from+readWindow-1)
		var m []struct {
			Metric map[string]string
			Values points
		}
		expr := fmt.Sprintf("ledger{writer=%q}[%dms]", writer, end-from+1)
		at := strconv.FormatFloat(float64(end)/1000, 'f', 3, 64)
		if err := query(ctx, base, "query", url.Values{"query": {expr}, "time": {at}}, &m); err != nil {
			return fmt.Errorf("%s: %w", expr, err)
		}
		for _, s := range m {
			k := s.Metric["writer"] + "/" + s.Metric["n"]
			if stored[k] == nil {
				stored[k] = map[int64]uint64{}
			}
			for _, v := range s.Values {
				if _, ok := stored[k][v.ms]; ok {
					return fmt.Errorf("%s at %d twice", k, v.ms)
				}
				stored[k][v.ms] = v.bits
			}
		}
	}
	return nil
}

// points is a list like [[1.5,"2"],[2.5,"3"]], which can be long.
type points []point

type point struct {
	ms   int64
	bits uint64
}

// UnmarshalJSON implements json.Unmarshaler. What it gets is sound JSON.
func (p *points) UnmarshalJSON(b []byte) error {
	for rest := b[1:]; ; {
		_, after, more := bytes.Cut(rest, []byte("["))
		if !more {
			return nil
		}
		pair, after, _ := bytes.Cut(after, []byte("]"))
		sec, text, _ := bytes.Cut(pair, []byte(","))
		s, err1 := strconv.ParseFloat(string(bytes.TrimSpace(sec)), 64)
		v, err2 := strconv.ParseFloat(string(bytes.Trim(text, " \"")), 64)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		*p = append(*p, point{int64(math.Round(s * 1000)), math.Float64bits(v)})
		rest = after
	}
}

func parsePoint(v [2]json.RawMessage) (int64, uint64, error) {
	sec, err1 := strconv.ParseFloat(string(v[0]), 64)
	var text string
	err2 := json.Unmarshal(v[1], &text)
	f, err3 := strconv.ParseFloat(text, 64)
	return int64(math.Round(sec * 1000)), math.Float64bits(f), errors.Join(err1, err2, err3)
}
