package partial

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// version is the first byte of requests and answers.
const version = 1

// ErrMalformed: bytes are no request or answer, or of another version.
var ErrMalformed = errors.New("malformed fragment")

func putUvarint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

func putString[T ~[]byte | ~string](dst []byte, s T) []byte {
	return append(putUvarint(dst, uint64(len(s))), s...)
}

func putFloat(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}

func putTime(dst []byte, t time.Time) []byte {
	return putUvarint(binary.AppendVarint(dst, t.Unix()), uint64(t.Nanosecond()))
}

func putBools(dst []byte, a, b, c bool) []byte {
	var v byte
	for i, x := range []bool{a, b, c} {
		if x {
			v |= 1 << i
		}
	}
	return append(dst, v)
}

func putLabels(dst []byte, ls labels.Labels) []byte {
	return putString(dst, model.AppendKey(nil, ls))
}

// decoder reads what the put functions write. After the first fault every call returns zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.b, d.bad = nil, true
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bools() (a, b, c bool) {
	v := d.byte()
	if v > 7 {
		d.fail()
	}
	return v&1 != 0, v&2 != 0, v&4 != 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) time() time.Time {
	sec, nsec := d.varint(), d.uvarint()
	// Far enough for any query, and milliseconds fit in 64 bits.
	if nsec >= 1e9 || sec > math.MaxInt64/2000 || sec < math.MinInt64/2000 {
		d.fail()
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec))
}

func (d *decoder) float() float64 {
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return math.Float64frombits(v)
}

func (d *decoder) labels() labels.Labels {
	key := d.bytes()
	if len(key) == 0 {
		return labels.EmptyLabels()
	}
	if model.CheckKey(key) != nil {
		d.fail()
		return labels.EmptyLabels()
	}
	return model.KeyLabels(key)
}

func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return ErrMalformed
	}
	return nil
}
