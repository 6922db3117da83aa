package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers of a delivery beside Content-Type.
const (
	HeaderSignature = "X-Strandline-Signature" // t=UNIX SECONDS,v1=HEX; only with a secret
	HeaderDelivery  = "X-Strandline-Delivery"  // the same for each attempt of a message
)

// Sign returns the value of HeaderSignature for a body sent at t: HMAC-SHA256, keyed
// with the secret, over the seconds, a dot and the body.
func Sign(secret string, body []byte, t time.Time) string {
	seconds := strconv.FormatInt(t.Unix(), 10)
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac(secret, seconds, body))
}

func mac(secret, seconds string, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(seconds))
	h.Write([]byte{'.'})
	h.Write(body)
	return h.Sum(nil)
}

// Verify checks the value of HeaderSignature as a receiver does: it must be right, and
// its time within tolerance of now. The error wraps ErrSignature.
func Verify(secret, header string, body []byte, now time.Time, tolerance time.Duration) error {
	var seconds string
	var sums [][]byte
	for part := range strings.SplitSeq(header, ",") {
		name, v, _ := strings.Cut(part, "=")
		switch name {
		case "t":
			seconds = v
		case "v1":
			if sum, err := hex.DecodeString(v); err == nil && len(sums) < 8 {
				sums = append(sums, sum)
			}
		}
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: it has no time", ErrSignature)
	}
	if age := now.Sub(time.Unix(n, 0)); age > tolerance || age < -tolerance {
		return fmt.Errorf("%w: its time is too far away", ErrSignature)
	}
	want := mac(secret, seconds, body)
	for _, sum := range sums {
		if hmac.Equal(sum, want) {
			return nil
		}
	}
	return fmt.Errorf("%w: it does not match", ErrSignature)
}
