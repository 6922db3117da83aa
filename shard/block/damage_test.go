package block

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

func fileBytes(t testing.TB, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

func putFile(t testing.TB, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// readAll opens a damaged file, compares all that can be read with what was
// written, and returns the first error that a reader met and that of Verify.
func readAll(t *testing.T, fs vfs.FS, path string, in []sample) (read, verify error) {
	t.Helper()
	r, err := Open(fs, path)
	if err != nil {
		return err, err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for ord := range in {
		err := sameSeries(r, ord, &in[ord])
		var damage *model.CorruptionError
		if err != nil && !errors.As(err, &damage) {
			t.Fatalf("wrong data or an error of the wrong type: %v", err)
		}
		if err != nil && read == nil {
			read = err
		}
	}
	return read, r.Verify(context.Background(), anyChunk)
}

// TestBitFlips turns a bit of each of 500 sampled bytes, and of all bytes of the
// ends: nothing wrong is ever read, and Verify always finds the damage.
func TestBitFlips(t *testing.T) {
	for level := range 2 {
		rng := rand.New(rand.NewPCG(11, uint64(level)))
		in := randomSeries(rng, 90)
		fs := vfs.NewMem()
		writeBlock(t, fs, "b", level, in)
		good := fileBytes(t, fs, "b")
		var at []int
		for range 500 {
			at = append(at, rng.IntN(len(good)))
		}
		for i := range 64 {
			at = append(at, i, len(good)-1-i)
		}
		for _, i := range at {
			bad := append([]byte(nil), good...)
			bad[i] ^= 1 << rng.IntN(8)
			putFile(t, fs, "bad", bad)
			_, verify := readAll(t, fs, "bad", in)
			var damage *model.CorruptionError
			if !errors.As(verify, &damage) {
				t.Fatalf("level %d, byte %d of %d: Verify says %v", level, i, len(good), verify)
			}
			if damage.Path != "bad" {
				t.Fatalf("damage is told of %q", damage.Path)
			}
		}
	}
}

func TestTruncations(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	in := randomSeries(rng, 40)
	fs := vfs.NewMem()
	writeBlock(t, fs, "b", 1, in)
	good := fileBytes(t, fs, "b")
	lens := []int{0, 1, headerSize, headerSize + footerSize, len(good) - 1, len(good) - footerSize}
	for range 200 {
		lens = append(lens, rng.IntN(len(good)))
	}
	for _, n := range lens {
		putFile(t, fs, "bad", good[:n])
		var damage *model.CorruptionError
		if read, _ := readAll(t, fs, "bad", in); !errors.As(read, &damage) {
			t.Fatalf("a file cut to %d of %d bytes: %v", n, len(good), read)
		}
	}
	putFile(t, fs, "bad", append(append([]byte(nil), good...), 0))
	if _, err := Open(fs, "bad"); err == nil {
		t.Fatal("a file with a byte too many was opened")
	}
}

func TestVerifyReportsChunksThatDoNotDecode(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	in := randomSeries(rng, 20)
	fs := vfs.NewMem()
	writeBlock(t, fs, "b", 0, in)
	broken := errors.New("broken")
	err := openBlock(t, fs, "b").Verify(context.Background(), func(k chunk.Kind, _ []byte) error {
		if k == chunk.Blobs {
			return fmt.Errorf("a chunk: %w", broken)
		}
		return nil
	})
	var damage *model.CorruptionError
	if !errors.Is(err, broken) || !errors.As(err, &damage) {
		t.Fatalf("Verify says %v", err)
	}
}

// TestFailedWrites fails each operation of a writer in turn: the error comes out,
// and Abort leaves nothing.
func TestFailedWrites(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 13))
	in := randomSeries(rng, 80)
	failed := errors.New("the disk says no")
	for nth := 1; ; nth++ {
		mem, n := vfs.NewMem(), 0
		fs := vfs.NewFault(mem, func(op vfs.Op) error {
			if op.Kind != vfs.OpWrite && op.Kind != vfs.OpSync && op.Kind != vfs.OpCreate {
				return nil
			}
			if n++; n == nth {
				return failed
			}
			return nil
		})
		err := tryWrite(fs, in)
		if err == nil {
			if nth < 5 {
				t.Fatalf("only %d operations", nth)
			}
			return
		}
		if !errors.Is(err, failed) {
			t.Fatalf("operation %d: %v", nth, err)
		}
	}
}

func tryWrite(fs vfs.FS, in []sample) (err error) {
	w, err := NewWriter(fs, "b", WriterOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Abort()) }()
	for _, s := range in {
		if err := w.StartSeries(s.key, s.no); err != nil {
			return err
		}
		for _, c := range s.chunks {
			if err := w.AddChunk(c.meta.Kind, c.meta.MinT, c.meta.MaxT, c.meta.Count, &c.meta.Stats, c.data); err != nil {
				return err
			}
		}
	}
	_, err = w.Finish()
	return err
}
