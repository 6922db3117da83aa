package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strandline-db/strandline/bench/peers"
)

// patience bounds every wait for a condition; it is not a measure of speed.
const patience = 60 * time.Second

// child is a process that a test started.
type child struct {
	name   string
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
	err    error // what Wait returned; read after exited
	judged sync.Once
}

// start runs a program, kills it when the test ends, and shows its log if the test failed.
func start(t *testing.T, name string, args ...string) *child {
	t.Helper()
	return startCommand(t, exec.Command(name, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "log-")
	if err != nil {
		t.Fatal(err)
	}
	c := &child{name: filepath.Base(cmd.Path), cmd: cmd, log: f.Name(), exited: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = f, f
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		c.signal(syscall.SIGKILL)
		<-c.exited
		c.judge(t)
		if t.Failed() {
			t.Logf("%s wrote:\n%s", c.name, c.tail())
		}
	})
	return c
}

// signal ignores errors: the process may have ended already, and callers look at exited.
func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// judge fails the test if the process, which has ended, has a data race.
func (c *child) judge(t *testing.T) {
	t.Helper()
	c.judged.Do(func() {
		if wrote := c.wrote(); raced(c.err, wrote) {
			t.Errorf("%s: %v\n%s", c.name, c.err, wrote)
		}
	})
}

func (c *child) wrote() []byte {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

func (c *child) tail() []byte {
	b := c.wrote()
	return b[max(0, len(b)-4096):]
}

func (c *child) awaitExit(t *testing.T) error {
	t.Helper()
	select {
	case <-c.exited:
		c.judge(t)
		return c.err
	case <-time.After(patience):
		t.Fatalf("%s did not end", c.name)
		return nil
	}
}

// anon returns the process's anonymous memory in bytes.
func (c *child) anon(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("RssAnon:")); ok {
			kb, err := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no RssAnon for %s", c.name)
	return 0
}

// CPU returns the CPU time that the process has used.
func (c *child) CPU() (time.Duration, error) { return peers.CPU(c.cmd.Process.Pid) }

// strandline is a running server under test.
type strandline struct {
	*child
	base string
}

// serve starts the binary on dir and waits until it is ready.
func serve(t *testing.T, dir string, args ...string) *strandline {
	t.Helper()
	return serveAt(t, freeAddr(t), dir, args...)
}

// serveAt is serve at an address that clients know.
func serveAt(t *testing.T, addr, dir string, args ...string) *strandline {
	t.Helper()
	// The tests' samples may lie in 1970, and nothing but what they send may be there.
	all := append([]string{"serve", "--data", dir, "--listen", addr, "--retention=0", "--self-scrape-interval=0"}, args...)
	s := &strandline{child: start(t, program, all...), base: "http://" + addr}
	awaitReady(t, s.child, s.base+"/-/ready")
	return s
}

// freeAddrs returns n addresses, each another one.
func freeAddrs(t *testing.T, n int) (out []string) {
	t.Helper()
	for len(out) < n {
		if addr := freeAddr(t); !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := peers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func awaitReady(t *testing.T, c *child, url string) {
	t.Helper()
	await(t, url, func() error {
		select {
		case <-c.exited:
			c.judge(t)
			t.Fatalf("%s ended before it was ready: %v\n%s", c.name, c.err, c.tail())
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", res.Status)
		}
		return nil
	})
}

// await polls until cond returns nil.
func await(t *testing.T, what string, cond func() error) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// terminate stops the server cleanly and wants exit code 0.
func (s *strandline) terminate(t *testing.T) {
	t.Helper()
	s.signal(syscall.SIGTERM)
	if err := s.awaitExit(t); err != nil {
		t.Fatalf("after SIGTERM: %v", err)
	}
}

// kill ends the server with SIGKILL.
func (s *strandline) kill(t *testing.T) {
	t.Helper()
	s.signal(syscall.SIGKILL)
	_ = s.awaitExit(t) // says "signal: killed"
}

// metric returns the value of a line of /metrics; "0": it is not there.
func metric(t *testing.T, s *strandline, name string) string {
	t.Helper()
	text, err := get(t.Context(), s.base+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return "0"
}

// heap returns what two collections leave of the server's heap and stacks, in bytes; what its
// pools hold outlives one.
func (s *strandline) heap(t *testing.T) (held int64) {
	t.Helper()
	for range 2 {
		text, err := get(t.Context(), s.base+"/debug/pprof/heap?debug=1&gc=1")
		if err != nil {
			t.Fatal(err)
		}
		held = 0
		for _, name := range []string{"\n# HeapAlloc = ", "\n# Stack = "} {
			_, after, _ := strings.Cut(text, name)
			var n int64
			if _, err := fmt.Sscan(after, &n); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			held += n
		}
	}
	return held
}
