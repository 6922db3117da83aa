package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// damaged is what happens to a node's folder while it is down, with another node that is
// killed while the first comes back. It ends when every group has three voters again.
func damaged(name string, damage func(t *testing.T, c *trio, i int)) fault {
	return fault{name, func(t *testing.T, c *trio, i int) func() {
		other := (i + 1) % len(c.nodes)
		c.nodes[i].kill(t)
		damage(t, c, i)
		c.launch(t, i)
		time.Sleep(200 * time.Millisecond) // somewhere in its return; nothing is waited for
		c.nodes[other].kill(t)
		c.launch(t, other)
		return func() {
			for n := range c.nodes {
				c.await(t, n)
			}
			await(t, "three voters in every group", c.whole)
		}
	}}
}

// whole returns nil if every group has three voters, each known to n1.
func (c *trio) whole() error {
	var s struct {
		Groups []struct {
			Group   string
			Members []struct {
				ID    string
				Voter bool
			}
		}
	}
	if err := getJSON(context.Background(), "http://"+c.addrs[0]+"/api/v1/cluster/status", &s); err != nil {
		return err
	}
	for _, g := range s.Groups {
		voters := 0
		for _, m := range g.Members {
			if m.Voter {
				voters++
			}
		}
		if voters != len(c.nodes) || len(g.Members) != voters {
			return fmt.Errorf("%s has %+v", g.Group, g.Members)
		}
	}
	if len(s.Groups) == 0 {
		return errors.New("no groups yet")
	}
	return nil
}

// cutTail takes the last bytes that were written off a log, as a disk may that lied.
func cutTail(t *testing.T, dir string) {
	t.Helper()
	harmLog(t, dir, func(written []byte) { clear(written[max(0, len(written)-64):]) })
}

// flipMiddle flips a bit amid what was written to a log.
func flipMiddle(t *testing.T, dir string) {
	t.Helper()
	harmLog(t, dir, func(written []byte) { written[len(written)/2] ^= 4 })
}

// harmLog changes what was written to the last segment of a log.
func harmLog(t *testing.T, dir string, harm func(written []byte)) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no log in %s: %v", dir, err)
	}
	last := slices.Max(segments)
	b, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	harm(bytes.TrimRight(b, "\x00")) // the rest is preallocated
	if err := os.WriteFile(last, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRejoin is fault 15, in a soak: folders are lost, and logs cut at their ends
// and damaged inside, while another node fails as well; nodes are away for longer than the log goes back, and are killed
// while they fetch; and nodes are stopped one after another, as by an upgrade.
func TestRejoin(t *testing.T) {
	if !*soak {
		t.Skip("part of a soak: go test ./cmd/strandline/e2e -run TestRejoin -args -soak")
	}
	c := newTrio(t, nil)
	faults := []fault{
		damaged("wiped", func(t *testing.T, c *trio, i int) {
			if err := os.RemoveAll(filepath.Join(c.dir, fmt.Sprintf("n%d", i+1))); err != nil {
				t.Fatal(err)
			}
		}),
		damaged("tail cut", func(t *testing.T, c *trio, i int) { cutTail(t, filepath.Join(c.dir, fmt.Sprintf("n%d", i+1))) }),
		damaged("log damaged", func(t *testing.T, c *trio, i int) { flipMiddle(t, filepath.Join(c.dir, fmt.Sprintf("n%d", i+1))) }),
		damaged("away long", func(t *testing.T, c *trio, i int) {
			time.Sleep(8 * time.Second) // more entries than stay in the others' logs
			for range 3 {
				c.launch(t, i)
				time.Sleep(400 * time.Millisecond) // somewhere in the installation
				c.nodes[i].kill(t)
			}
		}),
		{"stopped", func(t *testing.T, c *trio, i int) func() {
			c.nodes[i].terminate(t)
			return func() { c.launch(t, i) }
		}},
	}
	c.suffer(t, 15, rounds(0, 100), faults)
}
