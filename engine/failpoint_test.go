package engine

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/strandline-db/strandline/wal/clock"
	"github.com/strandline-db/strandline/wal/vfs"
)

// failpoints are the names in the sources, so that none is forgotten.
func failpoints(t *testing.T) (names []string) {
	t.Helper()
	call := regexp.MustCompile(`(?:\.fail|\.Failpoint)\("([a-z-]+)"\)`)
	for _, dir := range []string{"../wal", "../shard"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range call.FindAllSubmatch(text, -1) {
				names = append(names, string(m[1]))
			}
		}
	}
	return names
}

// TestPowerCutAtFailpoints cuts the power at every named failpoint that an engine comes
// to by itself, merges included: those of an installation and a repair need other
// replicas, and what is put aside in the log was damaged before.
func TestPowerCutAtFailpoints(t *testing.T) {
	for _, name := range failpoints(t) {
		if strings.HasPrefix(name, "install-") || strings.HasPrefix(name, "repair-") || name == "wal-put-aside" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			cuts := 0
			for seed := range uint64(4) {
				rng := rand.New(rand.NewPCG(seed, 17))
				mem, l := vfs.NewMem(), newLedger()
				var cut *vfs.MemFS
				then := newLedger()
				o := memOptions(mem)
				now := clock.NewManual(start)
				o.Clock = now
				in, kept := 1+rng.IntN(4), rng.IntN(101)
				o.Failpoint = func(at string) {
					if at != name {
						return
					}
					// It may be the engine's own upkeep, beside the writes: what is
					// acknowledged goes first, so that the disk has at least that.
					l.mu.Lock()
					defer l.mu.Unlock()
					if in--; in == 0 {
						for k, v := range l.acked {
							then.acked[k] = maps.Clone(v)
						}
						cut = mem.CrashClone(rand.New(rand.NewPCG(seed, 18)), kept)
					}
				}
				if _, err := l.work(rng, o, 60, func(int) { now.Advance(12 * time.Hour) }); err != nil {
					t.Fatal(err)
				}
				if cut == nil {
					continue
				}
				cuts++
				then.sent = l.sent
				if err := judgeFolder(cut, then); err != nil {
					t.Errorf("seed %d, %d %% kept: %v", seed, kept, err)
				}
			}
			if cuts < 2 {
				t.Errorf("the failpoint was hit in %d of 4 runs only", cuts)
			}
		})
	}
}
