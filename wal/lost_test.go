package wal

import (
	"bytes"
	"errors"
	"path"
	"testing"

	"github.com/strandline-db/strandline/wal/vfs"
)

// ofSegments writes a log of several segments into the folder w and closes it; newest is the number
// of the last one.
func ofSegments(t *testing.T) (disk *vfs.MemFS, opts *Options, newest uint64) {
	t.Helper()
	disk = vfs.NewMem()
	opts = &Options{FS: disk, SegmentSize: 4096}
	l, err := Open("w", opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 30; i++ {
		if err := l.Append([]Entry{{Stream: 1, Index: i, Data: bytes.Repeat([]byte{1}, 700)}}); err != nil {
			t.Fatal(err)
		}
	}
	newest = l.seq
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, opts, newest
}

// TestLostFirstSegment removes the oldest segment behind the log's back while it
// holds live entries. Open and Verify must both tell.
func TestLostFirstSegment(t *testing.T) {
	disk, opts, _ := ofSegments(t)
	if err := disk.Remove(path.Join("w", segmentName(1))); err != nil {
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

// TestLostNewestSegment removes the newest segment, and all of them, behind the log's back.
// Open and Verify must tell, and a replica's log goes on in doubt of it.
func TestLostNewestSegment(t *testing.T) {
	for _, all := range []bool{false, true} {
		disk, opts, newest := ofSegments(t)
		for seq := newest; seq == newest || all && seq > 0; seq-- {
			if err := disk.Remove(path.Join("w", segmentName(seq))); err != nil {
				t.Fatal(err)
			}
		}
		var damage *CorruptionError
		if l, err := Open("w", opts); !errors.As(err, &damage) {
			t.Fatalf("opened without the newest segment: it ends at %d, %v", l.Last(1), err)
		}
		reports := 0
		if err := Verify(disk, "w", func(string, int64, error) { reports++ }); err != nil || reports != 1 {
			t.Fatalf("%d reports, %v", reports, err)
		}
		for life := range 2 {
			l, err := Open("w", &Options{FS: disk, SegmentSize: 4096, PutAside: true})
			if err != nil {
				t.Fatal(err)
			}
			if doubt, err := l.Doubt(); err != nil || (doubt.Why == "") != (life == 1) || doubt.Tail {
				t.Errorf("life %d: doubt %+v, %v", life, doubt, err)
			}
			last := l.Last(1)
			err = l.Append([]Entry{{Stream: 1, Index: last + 1, Data: []byte("x")}})
			if err := errors.Join(err, l.ClearDoubt(), l.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestNewestOfEarlierVersion: a log without the file that names the newest segment, or with a
// damaged one, opens and gets a sound one.
func TestNewestOfEarlierVersion(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		disk := vfs.NewMem()
		name, _, _ := written(t, disk, false)
		note := path.Join("log", newestName)
		if damaged {
			change(t, disk, note, func(f vfs.File) {
				if _, err := f.WriteAt([]byte("9"), 3); err != nil {
					t.Fatal(err)
				}
			})
		} else if err := disk.Remove(note); err != nil {
			t.Fatal(err)
		}
		if last, why := opened(t, disk); last != 3 || why != "" {
			t.Fatalf("it ends at %d, in doubt because %q", last, why)
		}
		if err := disk.Remove(name); err != nil {
			t.Fatal(err)
		}
		var damage *CorruptionError
		if _, err := Open("log", &Options{FS: disk}); !errors.As(err, &damage) {
			t.Errorf("opened without its segment: %v", err)
		}
	}
}
