package wal

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strandline-db/strandline/wal/vfs"
)

// TestWritingWhileDropping: a disk that hangs shows also while the log drops segments or copies
// entries forward, when it keeps every writer waiting, and the log's figures wait for none.
func TestWritingWhileDropping(t *testing.T) {
	for name, at := range map[string]vfs.OpKind{"remove": vfs.OpRemove, "folder": vfs.OpSyncDir, "copy": vfs.OpSync} {
		t.Run(name, func(t *testing.T) {
			var dropping atomic.Bool
			syncs := 0 // since then
			entered, release := make(chan struct{}), make(chan struct{})
			l, err := Open("log", &Options{SegmentSize: 4096, FS: vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
				if !dropping.Load() || op.Kind != at {
					return nil
				}
				if syncs++; at == vfs.OpSync && syncs == 1 {
					return nil // of the record that says what is no longer needed
				}
				dropping.Store(false)
				close(entered)
				<-release
				return nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Append([]Entry{{Stream: 2, Index: 1, Data: []byte("of a stream that lags")}}); err != nil {
				t.Fatal(err)
			}
			for i := range uint64(10) {
				if err := l.Append([]Entry{{Stream: 1, Index: i + 1, Data: bytes.Repeat([]byte("x"), 3000)}}); err != nil {
					t.Fatal(err)
				}
			}
			dropping.Store(true)
			dropped := make(chan error, 1)
			go func() { dropped <- l.TruncateFront(1, 9) }()
			<-entered
			if n := l.Stats().Segments; n < 4 { // told at once, to an operator who looks for what hangs
				t.Errorf("%d segments", n)
			}
			if l.Writing() == 0 {
				t.Error("nothing is said to be written while the disk hangs")
			}
			close(release)
			if err := <-dropped; err != nil {
				t.Error(err)
			}
			if d := l.Writing(); d != 0 {
				t.Errorf("a write that has ended lasts for %v", d)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWritingByNoClock: how long a write lasts is measured from when the log was opened. By the
// machine's clock, one that is set forward would look like a disk that hangs.
func TestWritingByNoClock(t *testing.T) {
	before := time.Now()
	l, err := Open("log", &Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	l.beginWriting()
	if began := time.Duration(l.writing.Load()); began <= 0 || began > time.Since(before) {
		t.Errorf("a write began %v after the log was opened", began)
	}
	l.writing.Store(0)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
