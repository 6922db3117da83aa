package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// strand runs a subcommand and wants its success.
func strand(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// snapshot is what the ledger says now, with all that is sent later as sent only.
func (l *ledger) snapshot() map[string][]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	acked := map[string][]int64{}
	for k, samples := range l.mu.series {
		for ms, e := range samples {
			if e.acked {
				acked[k] = append(acked[k], ms)
			}
		}
	}
	return acked
}

// only returns a ledger of the same samples sent, of which those in acked were acknowledged.
func (l *ledger) only(acked map[string][]int64) *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := newLedger()
	for k, samples := range l.mu.series {
		out.mu.series[k] = map[int64]entry{}
		for ms, e := range samples {
			e.acked = false
			out.mu.series[k][ms] = e
		}
	}
	for k, times := range acked {
		for _, ms := range times {
			e := out.mu.series[k][ms]
			e.acked = true
			out.mu.series[k][ms] = e
			out.mu.acked++
		}
	}
	return out
}

// loading writes to a node from several clients, which try again, until stop, which
// returns the last time written.
func loading(t *testing.T, base string, l *ledger, first int64) (stop func() int64) {
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	ends := make([]int64, crashWriters)
	for w := range crashWriters {
		writers.Go(func() {
			for at := first; ; at++ {
				body, done := l.request(w, crashSeries, at)
				ends[w] = at
				for {
					status, _, err := post(ctx, http.DefaultClient, base, v1, body)
					if err == nil && status/100 == 2 {
						done()
						break
					}
					if ctx.Err() != nil {
						return
					}
				}
			}
		})
	}
	before := l.acked()
	await(t, "some writes", func() error {
		if now := l.acked(); now < before+20*crashSeries {
			return fmt.Errorf("%d samples", now-before)
		}
		return nil
	})
	return func() int64 { cancel(); writers.Wait(); return slices.Max(ends) }
}

// backUp makes, under load, two backups, and returns what had been acknowledged before each.
func backUp(t *testing.T, base string, l *ledger) (before []map[string][]int64) {
	t.Helper()
	for _, name := range []string{"first", "second"} {
		before = append(before, l.snapshot())
		out := strand(t, "backup", "--server", base, name)
		if !strings.Contains(out, "backup "+name+" of ") {
			t.Fatal(out)
		}
		t.Log(out)
		had := l.acked()
		await(t, "writes after the backup", func() error {
			if l.acked() == had {
				return fmt.Errorf("none")
			}
			return nil
		})
	}
	return before
}

// TestBackup: a single node is backed up while it is written to. What is restored has all
// that was acknowledged before, and nothing that was never sent, and becomes a cluster.
func TestBackup(t *testing.T) {
	c, l := prepared(t), newLedger()
	backups := filepath.Join(c.dir, "backups")
	first := time.Now().Add(-time.Hour).UnixMilli()
	s := serve(t, filepath.Join(c.dir, "data"), append(tinyFlush(), "--shards", "8", "--backup-dir", backups)...)
	stop := loading(t, s.base, l, first)
	before := backUp(t, s.base, l)
	last := stop()
	refusedBackup(t, s.base, "first", http.StatusConflict)
	refusedBackup(t, s.base, "../first", http.StatusBadRequest)
	s.terminate(t)

	for i, name := range []string{"first", "second"} {
		at := filepath.Join(backups, name)
		t.Log(strand(t, "backup", "verify", at))
		data := filepath.Join(c.dir, "restored-"+name)
		t.Log(strand(t, "restore", "--from", at, "--data", data))
		strand(t, "check", "data", data)
		r := serve(t, data)
		l.only(before[i]).check(t, r.base, first, last)
		r.terminate(t)
	}
	restored := l.only(before[1])
	strand(t, "restore", "--from", filepath.Join(backups, "second"), "--data", filepath.Join(c.dir, "n1"))
	for i := range c.nodes {
		c.launch(t, i)
	}
	for i := range c.nodes {
		c.await(t, i)
	}
	put(t, restored, c.nodes[2].base, last+1)
	for i := range c.nodes {
		restored.check(t, c.nodes[i].base, first, last+1)
	}
	c.sameHashes(t)
}

// refusedBackup asks for a backup and wants a status.
func refusedBackup(t *testing.T, base, name string, want int) {
	t.Helper()
	res, err := http.PostForm(base+"/api/v1/admin/backup", url.Values{"name": {name}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != want {
		t.Fatalf("a backup called %q: %s", name, res.Status)
	}
}

// TestBackupOfCluster: any node of three makes a backup of the whole cluster under load,
// from which a single node is made; the folder of a cluster's node is not served alone.
func TestBackupOfCluster(t *testing.T) {
	dir, l := t.TempDir(), newLedger()
	c := newTrio(t, func(name string) []string {
		return []string{"--shards", "4", "--backup-dir", filepath.Join(dir, name)}
	})
	first := time.Now().Add(-time.Hour).UnixMilli()
	stop := loading(t, c.nodes[0].base, l, first)
	var before []map[string][]int64
	for _, n := range c.nodes {
		before = append(before, backUp(t, n.base, l)[1])
	}
	last := stop()
	for i := range c.nodes {
		name := fmt.Sprintf("n%d", i+1)
		at := filepath.Join(dir, name, "second")
		strand(t, "backup", "verify", at)
		strand(t, "restore", "--from", at, "--data", filepath.Join(dir, "restored-"+name))
		r := serve(t, filepath.Join(dir, "restored-"+name))
		l.only(before[i]).check(t, r.base, first, last)
		r.terminate(t)
	}
	c.nodes[1].terminate(t)
	out, err := run(t, "serve", "--data", filepath.Join(c.dir, "n2"), "--listen", freeAddr(t))
	if err == nil || !strings.Contains(out, "belongs to a node of a cluster") {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "n2", "second.tmp")); err == nil {
		t.Fatal("an unfinished backup is left")
	}
}
