package chunk

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the samples of encodings under testdata that are missing")

// sample is a chunk's contents. Chunks of these are checked in and must stay readable.
type sample struct {
	name  string
	base  int64
	ts    []int64
	st    []int64
	vs    []float64
	blobs [][]byte
}

// samples cover every encoding; TestGolden fails if one is left out.
func samples() []sample {
	shape := func(name string, manner, n int) sample {
		for _, c := range columns() {
			if c.name == name {
				r := rand.New(rand.NewPCG(7, uint64(n)))
				return sample{name: strings.ReplaceAll(name, " ", "_"), ts: times(r, manner, n), vs: c.values(r, n)}
			}
		}
		return sample{}
	}
	out := []sample{
		shape("constant integer", 0, 32),
		shape("constant float", 1, 40),
		shape("steady counter", 2, 40),
		shape("counter", 3, 40),
		shape("bursty counter", 1, 120),
		shape("counter with resets", 4, 120),
		shape("gauge of bytes", 0, 40),
		shape("seconds of CPU", 0, 40),
		shape("temperature", 0, 40),
		shape("counter gone stale", 0, 80),
		shape("decimals with specials", 0, 80),
		shape("random walk of floats", 0, 32),
		shape("float32", 0, 32),
		shape("powers of a half", 0, 32),
		shape("random bits", 0, 32),
		shape("rarely changing float", 0, 120),
		shape("blurred sum of seconds", 0, 80),
		shape("constant integer", 0, 1),
	}
	out[len(out)-1].name = "one_sample"
	r := rand.New(rand.NewPCG(8, 8))
	xs := sample{name: "last_bits_zero", ts: times(r, 0, 32), vs: make([]float64, 32)}
	for i := range xs.vs { // few bits each, at places that vary, of any sign
		xs.vs[i] = math.Float64frombits(0x3ff<<52 | r.Uint64N(4)<<r.UintN(50) | r.Uint64()&(1<<63))
	}
	starts := shape("counter", 0, 32)
	starts.name, starts.st, starts.base = "start_timestamps", slices.Repeat([]int64{1789999990000}, 32), 1790000000000
	starts.st[31]++
	even := shape("counter", 0, 32)
	even.name = "even_timestamps"
	for i := range even.ts {
		even.ts[i] = 5 + 7*int64(i)
	}
	rate := shape("steady counter", 0, 60)
	rate.name = "changing_rate"
	for i := range rate.vs { // steady for a while, twice
		rate.vs[i] = float64(1000*i + 500*max(0, i-30))
	}
	blobs := sample{name: "blobs", ts: times(r, 0, 20), st: times(r, 1, 20)}
	for i := range blobs.ts {
		blobs.blobs = append(blobs.blobs, bytes.Repeat([]byte{byte(i)}, i%7))
	}
	return append(out, xs, starts, even, rate, blobs)
}

func TestGolden(t *testing.T) {
	encodings, transforms := map[byte]bool{}, map[byte]bool{}
	for _, s := range samples() {
		path := filepath.Join("testdata", "v1", s.name)
		if _, err := os.Stat(path + ".chunk"); *rewrite && os.IsNotExist(err) {
			writeGolden(t, path, &s)
		}
		b, err := os.ReadFile(path + ".chunk")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		d := Decoder{Base: s.base}
		got := sample{base: s.base}
		if s.blobs != nil {
			got.ts, got.st, got.blobs, err = d.Blobs(b, nil, nil, nil)
		} else {
			got.ts, got.vs, got.st, err = d.Floats(b, nil, nil, nil)
			noteIDs(t, b, encodings, transforms)
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if got.String() != string(text) {
			t.Errorf("%s: got\n%s\nwant\n%s", path, got.String(), text)
		}
	}
	for id := range byte(255) {
		if valueEncodingOf(id) != nil && !encodings[id] {
			t.Errorf("no sample of encoding %d", id)
		}
		if transformOf(id) != nil && !transforms[id] {
			t.Errorf("no sample of transform %d; seen %v", id, slices.Sorted(maps.Keys(transforms)))
		}
	}
}

// noteIDs records which encodings and transforms a chunk of floats uses.
func noteIDs(t *testing.T, b []byte, encodings, transforms map[byte]bool) {
	t.Helper()
	var d Decoder
	_, rest, ok := readUvarint(b)
	if !ok {
		t.Fatal("no count")
	}
	transforms[rest[0]&idMask] = true
	_, _, rest, err := d.times(b, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	encodings[rest[0]] = true
	if rest[0] == idIntegers || rest[0] == idBits {
		transforms[rest[1]&idMask] = true
	}
	if rest[0] == idDecimals && rest[1]&hasMisfits == 0 {
		transforms[rest[2]&idMask] = true
	}
}

func writeGolden(t *testing.T, path string, s *sample) {
	t.Helper()
	e := Encoder{Base: s.base}
	var b []byte
	if s.blobs != nil {
		b = e.Blobs(nil, s.ts, s.st, s.blobs)
	} else {
		b = e.Floats(nil, s.ts, s.vs, s.st)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".chunk", b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".txt", []byte(s.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// String lists a sample a line: timestamp, start timestamp if any, bits or bytes.
func (s *sample) String() string {
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	fmt.Fprintf(w, "base %d\n", s.base)
	for i, at := range s.ts {
		fmt.Fprintf(w, "%d", at)
		if len(s.st) > 0 {
			fmt.Fprintf(w, " st=%d", s.st[i])
		}
		if s.blobs != nil {
			fmt.Fprintf(w, " [%s]\n", hex.EncodeToString(s.blobs[i]))
		} else {
			fmt.Fprintf(w, " %016x %v\n", math.Float64bits(s.vs[i]), s.vs[i])
		}
	}
	w.Flush()
	return out.String()
}
