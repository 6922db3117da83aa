package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

func (c *trio) backup(at, name string) (*engine.Backup, error) {
	n := c.nodes[at].node
	return c.nodes[at].db.Backup(c.t.Context(), name, &engine.BackupOptions{Dir: filepath.Join(c.dir, "backups"),
		Sync: n.SyncAll, Holds: n.Holds, Elsewhere: n.CopyElsewhere, Skip: IsMapRecord})
}

// TestBackupElsewhere: a node that holds no shard makes a backup of the whole cluster, with
// all that was acknowledged before, and passes over a node that can't serve it; while a
// shard has no majority there is none, and nothing is left of it.
func TestBackupElsewhere(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 8 * time.Second})
	c.mustWrite("n1", 0, 2000)
	c.flush("n2")
	c.join("n4", "n1")
	c.mustWrite("n4", 2000, 50)
	if err := c.nodes["n4"].node.Holds(0); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "lies on n1, n2, n3") {
		t.Fatal(err)
	}
	c.stop("n1")
	b, err := c.backup("n4", "far")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.dir, "backups", "far")
	if _, err := engine.VerifyBackup(t.Context(), vfs.OS{}, dir, func(path string, err error) { t.Errorf("%s: %v", path, err) }); err != nil {
		t.Fatal(err)
	}
	if len(b.Indexes) != 4 || b.Bytes() == 0 {
		t.Errorf("%+v", b)
	}
	restored := filepath.Join(c.dir, "restored")
	if _, err := engine.Restore(t.Context(), vfs.OS{}, dir, restored); err != nil {
		t.Fatal(err)
	}
	if n := samplesIn(t, restored); n != 10*2050 {
		t.Errorf("%d samples", n)
	}
	for name, m := range c.nodes {
		c.await("nothing lent by "+name, func() error {
			m.node.mu.Lock()
			defer m.node.mu.Unlock()
			if n := len(m.node.mu.lent); n > 0 {
				return fmt.Errorf("%d offers are", n)
			}
			return nil
		})
	}
	c.noWork()
	c.stop("n2")
	if _, err := c.backup("n4", "none"); !errors.Is(err, model.ErrUnavailable) {
		t.Errorf("without a majority: %v", err)
	}
	if names, err := (vfs.OS{}).List(filepath.Join(c.dir, "backups")); err != nil || len(names) != 2 { // the backup before, and the lock
		t.Error(names, err)
	}
	c.start("n1")
	c.start("n2")
	c.checkAll()
}

// samplesIn counts what a folder holds.
func samplesIn(t *testing.T, dir string) (n int) {
	t.Helper()
	db, err := engine.Open(dir, &engine.Options{Retention: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	sel, err := db.Select(context.Background(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	defer sel.Close()
	for _, s := range sel.Series {
		var cols model.Columns
		if err := s.Read(&cols); err != nil {
			t.Fatal(err)
		}
		n += len(cols.T)
	}
	return n
}

// TestFlushDuringTransfer: flushes that meet a transfer of leadership wait for its end.
func TestFlushDuringTransfer(t *testing.T) {
	c := newTrio(t, Options{})
	for round := range 40 {
		c.mustWrite("n1", int64(10*round), 10)
		leader, other := c.leaderOf(0)
		g := c.nodes[leader].node.group(0)
		i := slices.IndexFunc(g.voters(), func(s raft.Server) bool { return string(s.Address) == other })
		moved := make(chan error, 1)
		go func() { moved <- g.transfer(g.voters()[i]) }()
		for open := true; open; {
			select {
			case <-moved: // or it failed: then there is nothing to meet
				open = false
			default:
			}
			if err := g.flush(t.Context()); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			_ = until(g, g.raft.Apply(g.join(nil, nil), time.Second)).Error() // something new, if it still leads
		}
	}
	c.checkAll()
}
