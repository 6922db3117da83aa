package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestRecoverKilled: a recovery ends at one of its file operations, by a kill or with the
// machine's power. Then the folder is as before, or the node doesn't start; the next recovery
// brings all back that was there.
func TestRecoverKilled(t *testing.T) {
	disks := &memDisks{}
	c := newTrioOn(t, Options{}, disks.of)
	c.mustWrite("n1", 0, 50)
	c.checkAll()
	c.flush("n1")
	c.markShards()
	c.mustWrite("n2", 50, 20)
	c.checkAll() // n1 has it all
	for name := range c.peers {
		c.stop(name)
	}
	before := disks.of("n1").(*vfs.MemFS)
	rng := rand.New(rand.NewPCG(1, 2))
	begun := 0
	for at := 1; ; at += 7 { // some 30 of 220 operations, each way to crash among them
		disk := before.CrashClone(rng, 100)
		if c.killRecover(disk, at) {
			if begun == 0 {
				t.Fatal("it was never killed in its middle")
			}
			return
		}
		disk = disk.CrashClone(rng, []int{0, 50, 100}[at%3])
		me, err := loadIdentity(&Options{FS: disk, Dir: filepath.Join(c.dir, "n1"), Name: "n1"})
		if errors.Is(err, ErrIdentity) {
			begun++
		} else if err != nil || !me.get().Started {
			t.Fatalf("killed at operation %d: %v", at, err)
		}
		if _, err := c.recover("n1", vfs.NewFault(disk, nil), true); err != nil {
			t.Fatalf("again, after it was killed at operation %d: %v", at, err)
		}
		disks.mu.Lock()
		disks.mu.by["n1"] = disk
		disks.mu.Unlock()
		c.start("n1")
		c.check("n1")
		c.stop("n1")
	}
}

// killRecover runs a recovery of n1 on a disk that does nothing more from an operation on,
// counted from the answer; true if it came to its end.
func (c *trio) killRecover(disk *vfs.MemFS, at int) bool {
	c.t.Helper()
	asked, ops := false, 0
	fsys := vfs.NewFault(disk, func(vfs.Op) error {
		if asked {
			ops++
		}
		if ops >= at {
			return os.ErrPermission
		}
		return nil
	})
	err := Recover(context.Background(), filepath.Join(c.dir, "n1"), engine.Options{Retention: -1, FS: fsys, SegmentBytes: 1 << 20},
		func(*Survivor) bool { asked = true; return true })
	if err != nil && ops < at {
		c.t.Fatalf("recovery failed by itself: %v", err)
	}
	return err == nil && ops < at
}
