package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrSeal: the checksum of a sealed file does not match.
var ErrSeal = errors.New("checksum mismatch")

// sealKey begins the last field of a sealed object: CRC32C of what is before it, in hex.
const sealKey = `,"crc32c":"`

// Seal adds a checksum to a JSON object with at least one field, as its last: one that knows
// nothing of it reads the object as before.
func Seal(object []byte) []byte {
	body := bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(object), []byte("}")))
	return fmt.Appendf(bytes.Clone(body), "%s%08x\"}\n", sealKey, sum(body))
}

// CheckSeal returns ErrSeal if an object is sealed and not what was sealed. One without a seal,
// as files of earlier versions are, is taken as it is.
func CheckSeal(object []byte) error {
	i := bytes.LastIndex(object, []byte(sealKey))
	if i < 0 {
		return nil
	}
	if want := fmt.Appendf(nil, "%s%08x\"}\n", sealKey, sum(object[:i])); !bytes.Equal(object[i:], want) {
		return ErrSeal
	}
	return nil
}

func sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
