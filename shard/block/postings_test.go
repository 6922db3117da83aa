package block

import (
	"encoding/binary"
	"testing"
)

// TestPostingsDoNotWrap: a distance that wraps round must not make a list that
// is out of order, which matchers would answer wrongly from.
func TestPostingsDoNotWrap(t *testing.T) {
	c := cursor{b: binary.AppendUvarint([]byte{2, 5}, 1<<64-3)}
	if ids := c.ids(9); !c.bad || ids != nil {
		t.Fatalf("malformed postings decode to %v", ids)
	}
}
