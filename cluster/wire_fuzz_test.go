package cluster

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

func sampleColumns() *model.Columns {
	h := &histogram.Histogram{Schema: 1, Count: 3, Sum: 2.5, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	return &model.Columns{T: []int64{-5, 0, 1 << 50}, V: []float64{math.Copysign(0, -1), math.Float64frombits(0x7ff0000000000002), 3}, ST: []int64{0, 1, 2},
		Hist: []model.HistogramSample{{T: 7, ST: 3, H: h}, {T: 9, FH: h.ToFloat(nil)}}}
}

// TestColumnsInPieces: a series comes over in pieces of any size bit for bit.
func TestColumnsInPieces(t *testing.T) {
	want := sampleColumns()
	for room := range 200 {
		got, at := &model.Columns{}, pieceOf{}
		for more := true; more; {
			var b []byte
			b, at, more = putColumns(nil, want, at, room)
			d := &decoder{b: b}
			if m := d.columns(got); m != more || d.end() != nil {
				t.Fatalf("room %d at %+v: more is %v, want %v; %v", room, at, m, more, d.end())
			}
		}
		if len(got.T) != 3 || len(got.Hist) != 2 || !reflect.DeepEqual(got.T, want.T) || !reflect.DeepEqual(got.ST, want.ST) || !reflect.DeepEqual(got.Hist, want.Hist) {
			t.Fatalf("room %d: %+v", room, got)
		}
		for i, v := range got.V {
			if math.Float64bits(v) != math.Float64bits(want.V[i]) {
				t.Fatalf("room %d: value %d is %x", room, i, math.Float64bits(v))
			}
		}
	}
}

func FuzzColumns(f *testing.F) {
	b, _, _ := putColumns(nil, sampleColumns(), pieceOf{}, 1<<20)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var c model.Columns
		d := &decoder{b: b}
		if d.columns(&c); d.end() == nil && (len(c.T) != len(c.V) || len(c.ST) > len(c.T)) {
			t.Fatalf("%d times, %d values, %d start times", len(c.T), len(c.V), len(c.ST))
		}
	})
}

func FuzzSelectRequest(f *testing.F) {
	one := &model.SelectRequest{MinT: -1, MaxT: 9, MaxSeries: 3, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "a", "b.*")}}
	f.Add(putSelect(nil, []int{1, 5}, one))
	f.Add(putSelect(nil, []int{5, 1}, one, everything()))
	f.Add(putSelect(nil, []int{5, 5}, one))
	f.Add(putSelect(nil, []int{-5}, one))
	f.Add([]byte("\x0201000\x010\x010\x00")) // a matcher of no kind, which panics when it is asked
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &decoder{b: b}
		shards, reqs := d.selectRequests()
		if d.end() != nil {
			return
		}
		if sorted := slices.Sorted(slices.Values(shards)); len(slices.Compact(sorted)) != len(shards) {
			t.Fatalf("a shard is held twice: %v", shards)
		}
		if slices.ContainsFunc(shards, func(s int) bool { return s < 0 }) {
			t.Fatalf("shards %v", shards)
		}
		again := &decoder{b: putSelect(nil, shards, reqs...)}
		if s, r := again.selectRequests(); again.end() != nil || !slices.Equal(s, shards) || !slices.EqualFunc(r, reqs, sameRequest) {
			t.Fatalf("%v %+v, want %v %+v", s, r, shards, reqs)
		}
	})
}

func sameRequest(a, b *model.SelectRequest) bool {
	return a.MinT == b.MinT && a.MaxT == b.MaxT && a.MaxSeries == b.MaxSeries && slices.EqualFunc(a.Matchers, b.Matchers,
		func(a, b *labels.Matcher) bool { return a.String() == b.String() })
}

func FuzzExemplars(f *testing.F) {
	f.Add(putExemplars(nil, []model.SeriesExemplars{{Labels: labels.FromStrings("a", "b"), Exemplars: []model.Exemplar{{T: 1, Value: 2, Labels: []byte{}}}}}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		(&decoder{b: b}).exemplars()
		(&decoder{b: b}).strings()
	})
}

func FuzzMark(f *testing.F) {
	f.Add(putMark("token", "n1", "n2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !isMark(b) {
			return
		}
		if token, names, err := parseMark(b); err == nil {
			if to, ns, err := parseMark(putMark(token, names...)); err != nil || to != token || len(ns) != len(names) {
				t.Fatalf("%q %q %v, want %q %q", to, ns, err, token, names)
			}
		}
	})
}

func FuzzMap(f *testing.F) {
	f.Add(shardKey(3), []byte(`{"replicas":["n1"]}`))
	f.Add(nodePrefix+"n1", []byte(`{"name":"n1","state":"member"}`))
	f.Add(planKey, []byte(`{"id":"x","state":"running"}`))
	f.Add(moveKey(0), []byte(`{"shard":1,"from":"a","to":"b","phase":"adding"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if m, err := readMap([]model.Record{{Key: key, Value: value}}, 4); err == nil {
			if _, err := propose(m, ""); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestRendezvous: three different nodes a shard, an even spread, and little that moves.
func TestRendezvous(t *testing.T) {
	four, five := rendezvous([]string{"a", "b", "c", "d"}, 64), rendezvous([]string{"e", "d", "c", "b", "a"}, 64)
	load, moved := map[string]int{}, 0
	for s := range five {
		seen := map[string]bool{}
		for _, n := range five[s] {
			seen[n] = true
			load[n]++
		}
		if len(seen) != replication {
			t.Fatalf("shard %d is on %v", s, five[s])
		}
		for _, n := range four[s] {
			if !seen[n] {
				moved++
			}
		}
	}
	for n, k := range load {
		if k < 26 || k > 48 {
			t.Errorf("%s has %d of %d replicas", n, k, 64*replication)
		}
	}
	if moved > 64*replication*2/5 {
		t.Errorf("a fifth node moves %d of %d replicas", moved, 64*replication)
	}
	for _, x := range []struct{ nodes, voters int }{{1, 1}, {2, 1}, {3, 3}, {4, 3}, {5, 5}, {9, 5}} {
		if got := metaVoters(x.nodes); got != x.voters {
			t.Errorf("%d nodes have %d voters", x.nodes, got)
		}
	}
}

// TestPutMessage: a message that is encoded into the frame reads as one that is copied.
func TestPutMessage(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 1 << 14, 1 << 21} {
		data := bytes.Repeat([]byte{0xa5}, n)
		frame := (&message{kind: kindAppend, id: 7, group: 300, put: func(b []byte) []byte { return append(b, data...) }}).append(nil)
		frame = (&message{kind: kindAnswer, id: 8, data: data}).append(frame)
		var got []message
		if err := eachMessage(frame, false, func(m *message) { got = append(got, *m) }); err != nil || len(got) != 2 {
			t.Fatalf("%d bytes: %d messages, %v", n, len(got), err)
		}
		if m := &got[0]; m.kind != kindAppend || m.id != 7 || m.group != 300 || !bytes.Equal(m.data, data) {
			t.Errorf("%d bytes come as %d, message %d to group %d", n, len(m.data), m.id, m.group)
		}
		if m := &got[1]; m.kind != kindAnswer || !bytes.Equal(m.data, data) {
			t.Errorf("what follows %d bytes does not come", n)
		}
	}
}

// TestDrainMoves: a drain moves what is on the node, and nothing else: to nodes that had no part
// yet, too.
func TestDrainMoves(t *testing.T) {
	m := &clusterMap{nodes: map[string]NodeRecord{}, shards: make([]ShardRecord, 64)}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} { // e and f have entered, and have been given nothing
		m.nodes[name] = NodeRecord{Name: name, State: stateMember}
	}
	held := map[string]int{}
	for i, on := range rendezvous([]string{"a", "b", "c", "d"}, len(m.shards)) {
		m.shards[i].Replicas = on
		for _, name := range on {
			held[name]++
		}
	}
	if len(planMoves(m, "")) == 0 {
		t.Fatal("nothing is out of balance")
	}
	for _, name := range []string{"e", "d"} {
		x := m.nodes[name]
		x.State = stateDraining
		m.nodes[name] = x
		moves := planMoves(m, name)
		if len(moves) != held[name] {
			t.Errorf("%d moves off %s, which holds %d replicas", len(moves), name, held[name])
		}
		for i := range moves {
			if k := &moves[i]; k.From != name || k.To == "" || m.shards[k.Shard].on(k.To) || m.nodes[k.To].State != stateMember {
				t.Errorf("off %s: %s", name, k)
			}
		}
	}
	m.nodes["c"] = NodeRecord{Name: "c", State: stateDraining} // on a shard with another that drains
	m.nodes["d"] = NodeRecord{Name: "d", State: stateMember}
	m.shards = []ShardRecord{{Replicas: []string{"b", "c", "e"}}}
	for _, k := range planMoves(m, "e") {
		if k.From != "e" || k.To == "" {
			t.Error(&k)
		}
	}
}
