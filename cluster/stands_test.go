package cluster

import (
	"errors"
	"testing"

	"github.com/strandline-db/strandline/shard/model"
)

// TestStands: a change that was done by an attempt whose answer was lost is known by what it
// has left; one that another has overtaken is not taken for done.
func TestStands(t *testing.T) {
	c := newTrio(t, Options{})
	n := c.nodes["n1"].node
	put := func(key, value string) model.Change { return model.Change{Key: key, Value: []byte(value)} }
	first := &model.RecordChange{Guards: []model.Guard{{Key: "test/a"}}, Changes: []model.Change{put("test/a", "1"), put("test/ab", "2"), put("test/a", "3")}}
	if err := n.ChangeRecords(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := n.ChangeRecords(t.Context(), first); !errors.Is(err, model.ErrConflict) {
		t.Errorf("a second change of its own with the same guard: %v", err)
	}
	for _, x := range []struct {
		changes []model.Change
		want    bool
	}{
		{first.Changes, true},
		{[]model.Change{put("test/a", "1")}, false},
		{[]model.Change{put("test/", "3")}, false},
		{[]model.Change{{Key: "test/a", Delete: true}}, false},
		{[]model.Change{{Key: "test/abc", Delete: true}}, true},
		{[]model.Change{{Key: "test/", Delete: true}, put("test/ab", "2")}, true},
	} {
		if got := n.stands(&model.RecordChange{Changes: x.changes}); got != x.want {
			t.Errorf("%v stands: %t", x.changes, got)
		}
	}
}
