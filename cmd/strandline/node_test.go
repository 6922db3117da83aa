package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/strandline-db/strandline/server/config"
)

// runNode runs a server in this process until it is ready. The functions send it a
// signal and return how it ended.
func runNode(t *testing.T) (n *node, signals chan os.Signal, ended func() error) {
	t.Helper()
	r, w := io.Pipe()
	dir := t.TempDir()
	n = &node{out: w, load: func() (*config.Config, error) {
		return config.Load(nil, map[string]string{"data": dir, "listen": "127.0.0.1:0", "shards": "2"})
	}}
	signals = make(chan os.Signal, 4)
	done := make(chan error, 1)
	go func() { done <- errors.Join(n.run(signals), w.Close()) }()
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "msg=ready") {
		if strings.Contains(lines.Text(), "ERROR") {
			t.Fatal(lines.Text())
		}
	}
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		for lines.Scan() {
			continue
		}
	}()
	return n, signals, func() error { err := <-done; <-rest; return err }
}

func TestStorageFailureEndsTheProcessWithAnError(t *testing.T) {
	n, _, ended := runNode(t)
	cause := errors.New("disk is gone")
	n.failed <- cause
	if err := ended(); !errors.Is(err, errStorage) || !errors.Is(err, cause) {
		t.Fatalf("got %v", err)
	}
	n.stopScrape()
	if err := errors.Join(n.rules.close(), n.db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestSignalEndsTheProcessWithout(t *testing.T) {
	_, signals, ended := runNode(t)
	signals <- syscall.SIGHUP
	signals <- syscall.SIGTERM
	if err := ended(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondSignalDoesNotWait(t *testing.T) {
	n, signals, ended := runNode(t)
	release, gone, scrape := make(chan struct{}), make(chan struct{}), n.stopScrape
	n.stopScrape = func() { // stopping hangs here, and does not come further
		defer close(gone)
		<-release
		scrape()
		runtime.Goexit()
	}
	signals <- syscall.SIGINT
	signals <- syscall.SIGINT
	if err := ended(); !errors.Is(err, errForced) {
		t.Fatalf("got %v", err)
	}
	close(release)
	<-gone
	if err := errors.Join(n.rules.close(), n.db.Close()); err != nil {
		t.Fatal(err)
	}
}
