package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// volume is a small ext4 of its own on a loop device.
type volume struct{ image, dir string }

// newVolume makes and mounts one, and takes it away when the test ends. Where that is not
// permitted the test is left out, or fails if CI is true.
func newVolume(t *testing.T, dir string, bytes int64) *volume {
	t.Helper()
	v := &volume{image: filepath.Join(t.TempDir(), "image"), dir: dir}
	t.Cleanup(func() {
		_ = command("umount", v.dir) // it may be off already
		_ = command("umount", v.dir) // what it is on
	})
	need(t, "run as root where loop devices may be mounted, and apt-get install e2fsprogs mount", func() (string, error) {
		f, err := os.Create(v.image)
		if err != nil {
			return "", err
		}
		err = errors.Join(f.Truncate(bytes), f.Close(), os.MkdirAll(dir, 0o700))
		if err != nil {
			return "", err
		}
		// On a mount that is shared: else whoever makes a mount namespace meanwhile, as ip netns
		// does, keeps the file system, and it comes back as the power cut left it.
		err = errors.Join(command("mkfs.ext4", "-q", v.image), command("mount", "--bind", dir, dir), command("mount", "--make-shared", dir))
		if err != nil {
			return "", err
		}
		return "", v.mount()
	})
	return v
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

func (v *volume) mount() error { return command("mount", "-o", "loop", v.image, v.dir) }

// cutPower stops all writing at once, with nothing of the journal flushed. From a machine
// without power nothing more is heard. Here the server goes on, and an fdatasync under way
// during the shutdown may succeed without having done its work: so what is acknowledged
// from now on, until the ledger hears again, does not count.
func (v *volume) cutPower(t *testing.T, l *ledger) {
	t.Helper()
	l.hear(false)
	const shutdown, noLogFlush = 0x8004587d, 2 // FS_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	f, err := os.Open(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush); err != nil {
		t.Fatal(err)
	}
}

// restore is what a boot does: the journal is replayed.
func (v *volume) restore(t *testing.T) {
	t.Helper()
	await(t, "unmounting", func() error { return command("umount", v.dir) })
	if err := v.mount(); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCut is fault 4: the power fails under full ingest, flush and compaction.
func TestPowerCut(t *testing.T) {
	v := newVolume(t, filepath.Join(t.TempDir(), "disk"), 512<<20)
	l := newLedger()
	first := time.Now().Add(-time.Hour).UnixMilli()
	next := first
	for round := range rounds(10, 500) {
		s := serve(t, v.dir, append(tinyFlush(), "--min-free-bytes=0")...)
		if round > 0 {
			l.check(t, s.base, first, next)
		}
		next = underIngest(t, s, l, next, func() { v.cutPower(t, l) })
		s.kill(t)
		v.restore(t)
		l.hear(true)
	}
	s := serve(t, v.dir, "--min-free-bytes=0")
	l.check(t, s.base, first, next)
	t.Logf("%d rounds, %d samples acknowledged", rounds(10, 500), l.acked())
	s.terminate(t)
}

// underIngest writes from several clients, does something once they are under way, waits
// until all writes fail or the server is gone, and returns the next timestamp.
func underIngest(t *testing.T, s *strandline, l *ledger, from int64, do func()) (next int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := l.acked()
	var writers sync.WaitGroup
	ends := make([]int64, crashWriters)
	for w := range crashWriters {
		writers.Go(func() { ends[w] = writeUntilRefused(ctx, s.base, l, w, from) })
	}
	await(t, "some writes", func() error {
		if now := l.acked(); now < before+20*crashSeries {
			return fmt.Errorf("%d samples", now-before)
		}
		return nil
	})
	do()
	writers.Wait()
	next = from
	for _, e := range ends {
		next = max(next, e+1)
	}
	return next
}

// writeUntilRefused sends requests until one is not acknowledged, for whatever reason.
func writeUntilRefused(ctx context.Context, base string, l *ledger, writer int, ms int64) int64 {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for ; ; ms++ {
		body, done := l.request(writer, crashSeries, ms)
		if status, _, err := post(ctx, client, base, v1, body); err != nil || status/100 != 2 {
			return ms
		}
		done()
	}
}

// failpoints are the names in the sources, so that none is forgotten.
func failpoints(t *testing.T) (names []string) {
	t.Helper()
	call := regexp.MustCompile(`(?:\.fail|\.Failpoint)\("([a-z-]+)"\)`)
	for _, dir := range []string{"wal", "shard"} {
		files, err := filepath.Glob(filepath.Join("../../..", dir, "*.go"))
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

// TestFailpoints is fault 2: SIGKILL at every named failpoint that a node comes to under
// ingest. Merges come once a minute, so theirs are left to a soak (and to the engine's
// own tests); those of an installation and a repair need other replicas,
// and what is put aside in the log was damaged before.
func TestFailpoints(t *testing.T) {
	armed := filepath.Join(t.TempDir(), "strandline")
	if err := build(armed, "-tags", "invariants"); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(2, 0))
	hit := 0
	for _, name := range failpoints(t) {
		if strings.HasPrefix(name, "install-") || strings.HasPrefix(name, "repair-") || name == "wal-put-aside" || strings.HasPrefix(name, "merge-") && !*soak {
			continue
		}
		hit++
		t.Run(name, func(t *testing.T) {
			dir, l := t.TempDir(), newLedger()
			first := time.Now().Add(-time.Hour).UnixMilli()
			s := serve(t, dir, tinyFlush()...)
			l.check(t, s.base, first, first+1)
			s.kill(t)
			t.Setenv("STRANDLINE_FAILPOINT", fmt.Sprintf("%s:%d", name, 1+rnd.IntN(5)))
			addr := freeAddr(t)
			s = &strandline{child: start(t, armed, append([]string{"serve", "--data", dir, "--listen", addr, "--retention=0", "--self-scrape-interval=0"}, tinyFlush()...)...), base: "http://" + addr}
			next := first
			for alive := true; alive; { // until it is up, and then until it is gone
				for w := range 2 {
					next = max(next, writeUntilDown(t.Context(), s.base, l, w, next)+1)
				}
				select {
				case <-s.exited:
					alive = false
				case <-time.After(5 * time.Millisecond):
				}
			}
			var exit *exec.ExitError
			if !errors.As(s.err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("it ended by %v\n%s", s.err, s.tail())
			}
			if err := os.Unsetenv("STRANDLINE_FAILPOINT"); err != nil {
				t.Fatal(err)
			}
			s = serve(t, dir, tinyFlush()...)
			l.check(t, s.base, first, next)
			s.terminate(t)
		})
	}
	if hit < 10 {
		t.Errorf("only %d failpoints were found", hit)
	}
}

// TestFailedFsync is fault 6: after an fsync that failed the server stops, and does not
// sync that file again.
func TestFailedFsync(t *testing.T) {
	strace := need(t, "apt-get install strace, and permit ptrace", func() (string, error) {
		return "strace", command("strace", "-o", os.DevNull, "-e", "trace=none", "true")
	})
	for _, nth := range []int{3, 8, 20} {
		dir, l := t.TempDir(), newLedger()
		first := time.Now().Add(-time.Hour).UnixMilli()
		serve(t, dir, tinyFlush()...).terminate(t) // what a new folder syncs is not what is tested
		calls := filepath.Join(t.TempDir(), "calls")
		addr := freeAddr(t)
		args := append([]string{"-f", "-y", "-o", calls, "-e", "trace=fsync,fdatasync", "-e", fmt.Sprintf("inject=fsync,fdatasync:error=EIO:when=%d", nth),
			program, "serve", "--data", dir, "--listen", addr, "--retention=0", "--self-scrape-interval=0"}, tinyFlush()...)
		s := &strandline{child: start(t, strace, args...), base: "http://" + addr}
		next := first
		for alive := true; alive; {
			next = max(next, writeUntilRefused(t.Context(), s.base, l, 0, next)+1)
			select {
			case <-s.exited:
				alive = false
			case <-time.After(5 * time.Millisecond):
			}
		}
		if s.err == nil {
			t.Errorf("after a failed fsync the server ended as if all were well")
		}
		syncedAgain(t, calls)
		s = serve(t, dir, tinyFlush()...)
		l.check(t, s.base, first, next)
		s.terminate(t)
	}
}

// syncedAgain fails if a file was synced once more after that had failed.
func syncedAgain(t *testing.T, calls string) {
	t.Helper()
	text, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`(?:fsync|fdatasync)\(\d+<([^>]*)>`)
	failed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		m := call.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if failed[m[1]] {
			t.Errorf("synced after a failure: %s", line)
		}
		if strings.Contains(line, "INJECTED") {
			failed[m[1]] = true
		}
	}
	if len(failed) == 0 {
		t.Error("void: no fsync failed")
	}
}

// TestFullDisk is fault 7: with little room left the server takes no writes and answers
// queries, even when there is none, and comes back by itself.
func TestFullDisk(t *testing.T) {
	v := newVolume(t, filepath.Join(t.TempDir(), "disk"), 384<<20)
	l := newLedger()
	first := time.Now().Add(-time.Hour).UnixMilli()
	s := serve(t, filepath.Join(v.dir, "data"), append(tinyFlush(), "--min-free-bytes=64MiB")...)
	next := first
	for range 2 {
		next = underIngest(t, s, l, next, func() { fillDisk(t, v.dir, 32<<20) })
		refused(t, s, l, next)
		l.check(t, s.base, first, next)
		fillDisk(t, v.dir, 0)
		refused(t, s, l, next)
		l.check(t, s.base, first, next)
		if err := os.Remove(filepath.Join(v.dir, "filler")); err != nil {
			t.Fatal(err)
		}
		next++
		await(t, "writes again", func() error {
			body, done := l.request(0, crashSeries, next)
			status, text, err := post(t.Context(), http.DefaultClient, s.base, v1, body)
			if err == nil && status/100 == 2 {
				done()
				return nil
			}
			return errors.Join(err, fmt.Errorf("%d %s", status, text))
		})
		next++
	}
	l.check(t, s.base, first, next)
	s.terminate(t)
}

// refused wants 503 for a write.
func refused(t *testing.T, s *strandline, l *ledger, ms int64) {
	t.Helper()
	await(t, "503 for a write to a full disk", func() error {
		body, done := l.request(0, crashSeries, ms)
		status, text, err := post(t.Context(), http.DefaultClient, s.base, v1, body)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.tail())
		}
		if status/100 == 2 {
			done()
		}
		if status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %s", status, text)
		}
		return nil
	})
}

// fillDisk leaves so many bytes free.
func fillDisk(t *testing.T, dir string, left uint64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 256<<10); ; {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if st.Bavail*uint64(st.Bsize) <= left {
			return
		}
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
