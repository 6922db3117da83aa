package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestBackupNeedsAllShards: a node that holds everything is ready for a backup; one that
// does not refuses and says who holds what it lacks.
func TestBackupNeedsAllShards(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 20 * time.Second})
	c.mustWrite("n1", 0, 20)
	for _, name := range []string{"n1", "n2", "n3"} {
		if err := c.nodes[name].node.SyncAll(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	c.join("n4", "n1")
	err := c.nodes["n4"].node.SyncAll(t.Context())
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "lies on n1, n2, n3") {
		t.Fatal(err)
	}
}
