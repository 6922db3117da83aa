package ingest

import (
	"fmt"
	"strings"

	"github.com/golang/snappy"
)

// maxRatio is more than snappy can compress by: its densest element makes 64
// bytes of 3.
const maxRatio = 22

// decodedLen returns how long a snappy block says it is decompressed, once that
// is believable and allowed.
func decodedLen(src []byte, most int) (int, error) {
	n, err := snappy.DecodedLen(src)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: snappy: %w", ErrMalformed, err)
	case n > most:
		return 0, fmt.Errorf("%w: %d bytes decompressed, at most %d are allowed", ErrTooLarge, n, most)
	case n > maxRatio*len(src):
		return 0, fmt.Errorf("%w: snappy: %d bytes can't become %d", ErrMalformed, len(src), n)
	}
	return n, nil
}

// decompress returns src decompressed in buf's memory, or larger memory. n is
// what decodedLen returned for src.
func decompress(buf, src []byte, n int) ([]byte, error) {
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	out, err := snappy.Decode(buf[:n], src)
	if err != nil {
		return buf[:0], fmt.Errorf("%w: snappy: %w", ErrMalformed, err)
	}
	return out, nil
}

// protocol is a version of remote-write.
type protocol int

const (
	protocolV1 protocol = 1
	protocolV2 protocol = 2
)

// protocolOf tells the protocol from the headers. As Prometheus does, it takes a
// missing content type for 1.0 and a missing encoding for snappy.
func protocolOf(contentType, encoding string) (protocol, error) {
	p := protocolV1
	if contentType != "" {
		parts := strings.Split(contentType, ";")
		if strings.TrimSpace(parts[0]) != "application/x-protobuf" {
			return 0, fmt.Errorf("%w: content type %q; want application/x-protobuf", ErrUnsupported, contentType)
		}
		for _, param := range parts[1:] {
			name, value, ok := strings.Cut(strings.TrimSpace(param), "=")
			if !ok {
				return 0, fmt.Errorf("%w: content type %q", ErrUnsupported, contentType)
			}
			if name != "proto" {
				continue
			}
			switch value {
			case "prometheus.WriteRequest":
				p = protocolV1
			case "io.prometheus.write.v2.Request":
				p = protocolV2
			default:
				return 0, fmt.Errorf("%w: message %q", ErrUnsupported, value)
			}
		}
	}
	if encoding != "" && encoding != "snappy" {
		return p, fmt.Errorf("%w: content encoding %q; want snappy", ErrUnsupported, encoding)
	}
	return p, nil
}
