package wal

import (
	"bytes"
	"errors"
	"path"
	"testing"

	"github.com/strandline-db/strandline/wal/vfs"
)

// TestLostFirstSegment removes the oldest segment behind the log's back while it
// holds live entries. Open and Verify must both tell.
func TestLostFirstSegment(t *testing.T) {
	disk := vfs.NewMem()
	opts := &Options{FS: disk, SegmentSize: 4096}
	l, err := Open("w", opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 30; i++ {
		if err := l.Append([]Entry{{Stream: 1, Index: i, Data: bytes.Repeat([]byte{1}, 700)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.Close(), disk.Remove(path.Join("w", segmentName(1)))); err != nil {
		t.Fatal(err)
	}
	var damage *CorruptionError
	if _, err := Open("w", opts); !errors.As(err, &damage) {
		t.Fatalf("opened without the first segment: %v", err)
	}
	reports := 0
	if err := Verify(disk, "w", func(string, int64, error) { reports++ }); err != nil || reports != 1 {
		t.Fatalf("%d reports, %v", reports, err)
	}
}
