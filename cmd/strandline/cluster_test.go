package main

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/cluster"
)

// TestStatusAge: the age of data whose age nobody knows is not told as a number.
func TestStatusAge(t *testing.T) {
	for age, want := range map[time.Duration]string{1500 * time.Millisecond: "may be 1.500 s old\n", math.MaxInt64: "nobody knows how old its data is\n"} {
		b, err := json.Marshal(cluster.Status{Node: "n1", Cluster: "c", Staleness: age.Seconds()})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := writeStatus(&out, b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%v: %q lacks %q", age, out.String(), want)
		}
	}
}

// TestPlanOfFew: a plan that leaves shards on two nodes, or one, says what that means.
func TestPlanOfFew(t *testing.T) {
	less := []cluster.Move{{Shard: 0, From: "n3"}}
	for name, c := range map[string]struct {
		members int
		moves   []cluster.Move
		want    string
	}{
		"two":   {2, less, "no shard goes on while either"},
		"one":   {1, less, "nowhere else"},
		"three": {3, []cluster.Move{{Shard: 0, From: "n4", To: "n3"}}, ""},
		"more":  {2, []cluster.Move{{Shard: 0, To: "n2"}}, ""},
	} {
		p := cluster.Proposal{Moves: c.moves, Nodes: []cluster.NodeShare{{Node: "n9", State: "draining"}}}
		for range c.members {
			p.Nodes = append(p.Nodes, cluster.NodeShare{Node: "n", State: "member"})
		}
		var out strings.Builder
		if err := writePlan(&out, &p); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "left:"); got != (c.want != "") || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %q", name, out.String())
		}
	}
}

// TestForcedRemovalSaysWhatElse: who is about to give up one node of two learns what helps, before
// anything is done.
func TestForcedRemovalSaysWhatElse(t *testing.T) {
	cmd := &cobra.Command{}
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetIn(strings.NewReader("n\n"))
	err := removeNode(&changeCommand{force: true}, cmd, []string{"n2"})
	if !errors.Is(err, errNotConfirmed) || !strings.Contains(out.String(), "`strandline cluster recover`") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestStatusOfStoppedDrain: where a drain was cancelled, the status says that the node is to be drained still.
func TestStatusOfStoppedDrain(t *testing.T) {
	for state, want := range map[cluster.PlanState]bool{cluster.PlanCancelled: true, cluster.PlanRunning: false} {
		s := cluster.Status{Nodes: []cluster.NodeStatus{{Name: "n3", State: "draining", Replicas: 2}}, Plan: &cluster.Plan{State: state}}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := writeStatus(&out, b); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "`strandline cluster add n3` keeps the node"); got != want {
			t.Errorf("%s: %s", state, out.String())
		}
	}
}
