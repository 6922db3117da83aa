package promjson

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// AppendHistogram writes count, sum and the buckets that are not empty, each as
// [boundaries, lower, upper, count]; boundaries: 0 is (lower, upper], 1 is
// [lower, upper), 2 is open and 3 closed at both ends.
func AppendHistogram(b []byte, h *histogram.FloatHistogram) []byte {
	b = append(b, `{"count":`...)
	b = AppendFloat(b, h.Count)
	b = append(b, `,"sum":`...)
	b = AppendFloat(b, h.Sum)
	sep := `,"buckets":[`
	for it := h.AllBucketIterator(); it.Next(); {
		bucket := it.At()
		if bucket.Count == 0 {
			continue
		}
		b = append(b, sep...)
		sep = `,`
		boundaries := byte('2')
		switch {
		case bucket.LowerInclusive && bucket.UpperInclusive:
			boundaries = '3'
		case bucket.LowerInclusive:
			boundaries = '1'
		case bucket.UpperInclusive:
			boundaries = '0'
		}
		b = append(b, '[', boundaries, ',')
		b = AppendFloat(b, bucket.Lower)
		b = append(b, ',')
		b = AppendFloat(b, bucket.Upper)
		b = append(b, ',')
		b = AppendFloat(b, bucket.Count)
		b = append(b, ']')
	}
	if sep == `,` {
		b = append(b, ']')
	}
	return append(b, '}')
}

// AppendLabels writes labels as an object.
func AppendLabels(b []byte, ls labels.Labels) []byte {
	sep := byte('{')
	ls.Range(func(l labels.Label) {
		b = append(b, sep)
		sep = ','
		b = AppendString(b, l.Name)
		b = append(b, ':')
		b = AppendString(b, l.Value)
	})
	if sep == '{' {
		b = append(b, sep)
	}
	return append(b, '}')
}

// AppendTime writes milliseconds as seconds, without going through a float.
func AppendTime(b []byte, t int64) []byte {
	ms := uint64(t)
	if t < 0 {
		b = append(b, '-')
		ms = -ms
	}
	b = strconv.AppendUint(b, ms/1000, 10)
	if f := ms % 1000; f != 0 {
		b = append(b, '.', '0'+byte(f/100), '0'+byte(f/10%10), '0'+byte(f%10))
	}
	return b
}

// AppendFloat writes a value as a string; very small and large ones with an exponent.
func AppendFloat(b []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	b = append(b, '"')
	b = strconv.AppendFloat(b, f, format, -1, 64)
	return append(b, '"')
}

// AppendString writes a string as Prometheus writes label names and values: only
// what JSON demands is escaped.
func AppendString(b []byte, s string) []byte { return quote(b, s, false) }

// AppendHTML writes a string as Prometheus writes all others: safe inside HTML too.
func AppendHTML(b []byte, s string) []byte { return quote(b, s, true) }

func quote(b []byte, s string, html bool) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c, size := s[i], 1
		var esc string
		switch {
		case c == '"':
			esc = `\"`
		case c == '\\':
			esc = `\\`
		case c == '\n':
			esc = `\n`
		case c == '\r':
			esc = `\r`
		case c == '\t':
			esc = `\t`
		case c < 0x20, html && (c == '<' || c == '>' || c == '&'):
			esc = `\u00` + string([]byte{hex[c>>4], hex[c&15]})
		case c >= utf8.RuneSelf && html:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && size == 1:
				esc = `\ufffd`
			case r == '\u2028':
				esc = `\u2028`
			case r == '\u2029':
				esc = `\u2029`
			}
		}
		if esc != "" {
			b = append(b, s[start:i]...)
			b = append(b, esc...)
			start = i + size
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
