package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLockTellsWhatIsWrong: only a folder that another has open is said to be.
func TestLockTellsWhatIsWrong(t *testing.T) {
	f := newFixture(t, Options{})
	if _, err := Open(f.dir, nil); err == nil || !strings.Contains(err.Error(), "another strandline") {
		t.Errorf("open twice: got %v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "LOCK"), 0o700); err != nil { // which can't be opened for writing
		t.Fatal(err)
	}
	if _, err := Open(dir, nil); err == nil || strings.Contains(err.Error(), "another strandline") {
		t.Errorf("got %v", err)
	}
}
