package cluster

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// TestRecords: changes at any node are the same on all, each guard lets one through,
// and a node that was away or lost its folder has them too.
func TestRecords(t *testing.T) {
	c := newTrio(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	set := func(node, key, value string, guards ...model.Guard) error {
		return c.nodes[node].db.ChangeRecords(ctx, &model.RecordChange{Guards: guards, Changes: []model.Change{{Key: key, Value: []byte(value)}}})
	}
	var wg sync.WaitGroup
	won := make(chan string, 3)
	for name := range c.peers {
		wg.Go(func() {
			err := set(name, "lock", name, model.Guard{Key: "lock"})
			switch {
			case err == nil:
				won <- name
			case !errors.Is(err, model.ErrConflict):
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	close(won)
	for name := range won {
		if got := c.nodes[name].db.Records("lock"); len(got) != 1 || string(got[0].Value) != name {
			t.Fatalf("%s got the lock, but shows %+v", name, got)
		}
	}
	c.stop("n3")
	for i := range 5 {
		if err := set("n1", "k"+strconv.Itoa(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	c.start("n3")
	c.sameRecords(6)
	for name := range c.peers {
		c.flush(name)
	}
	c.stop("n2")
	c.start("n2") // replays what the place does not cover, and changes nothing twice
	c.sameRecords(6)
}

// sameRecords waits until all nodes have n records, and compares them.
func (c *trio) sameRecords(n int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var first []model.Record
	for name, m := range c.nodes {
		if _, _, err := m.node.Sync(ctx, Wanted{Level: Linearizable, Held: true}); err != nil {
			c.t.Fatal(err)
		}
		got := append(m.db.Records("k"), m.db.Records("lock")...)
		if first == nil {
			first = got
		}
		if len(got) != n || !reflect.DeepEqual(got, first) {
			c.t.Fatalf("%s has %+v, another %+v", name, got, first)
		}
	}
}
