package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clusterCommand runs a subcommand of cluster against a node.
func clusterCommand(t *testing.T, n *strandline, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(program, append([]string{"cluster", args[0], "--server", n.base}, args[1:]...)...).CombinedOutput()
	return string(out), err
}

// TestFourthProcess: a node enters a running cluster, gets its part, serves all, gives
// it back and leaves, by the commands that a user has.
func TestFourthProcess(t *testing.T) {
	shards := func(string) []string { return []string{"--shards", "4"} }
	c, l := newTrio(t, shards), newLedger()
	at := int64(1000)
	write := func(n *strandline) {
		t.Helper()
		body, done := l.request(0, 50, at)
		await(t, "a write", func() error {
			status, text, err := post(t.Context(), http.DefaultClient, n.base, v1, body)
			if err == nil && status != http.StatusNoContent {
				err = fmt.Errorf("%d %s", status, text)
			}
			return err
		})
		done()
		at++
	}
	write(c.nodes[0])
	http4, cluster4 := freeAddr(t), freeAddr(t)
	seed := strings.Split(strings.Split(c.peers, ",")[1], "=")[1]
	args := append([]string{"serve", "--data", filepath.Join(c.dir, "n4"), "--listen", http4, "--retention=0", "--self-scrape-interval=0",
		"--cluster-node", "n4", "--cluster-listen", cluster4, "--cluster-join", seed, "--consistency", "linearizable", "--shards", "4"}, tinyFlush()...)
	n4 := &strandline{child: start(t, program, args...), base: "http://" + http4}
	awaitReady(t, n4.child, n4.base+"/-/ready")
	write(n4) // which holds nothing
	l.check(t, n4.base, 1000, at)

	command := func(want string, args ...string) {
		t.Helper()
		out, err := clusterCommand(t, n4, args...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("cluster %v: %v\n%s", args, err, out)
		}
	}
	replicas := func(name string, ok func(n int) bool) {
		t.Helper()
		await(t, "the end of the plan", func() error {
			var s struct {
				Nodes []struct {
					Name     string
					Replicas int
				}
				Plan struct{ State string }
			}
			if err := getJSON(t.Context(), c.nodes[1].base+"/api/v1/cluster/status", &s); err != nil {
				return err
			}
			for _, n := range s.Nodes {
				if n.Name == name && s.Plan.State == "done" && ok(n.Replicas) {
					return nil
				}
			}
			return fmt.Errorf("%+v", s)
		})
	}
	command("from n", "plan")
	command("accepted", "add", "n4", "--yes")
	write(c.nodes[2])
	replicas("n4", func(n int) bool { return n > 0 })
	command("hash", "status") // that of a move
	write(n4)
	for _, n := range []*strandline{n4, c.nodes[0]} {
		l.check(t, n.base, 1000, at)
	}
	if out, err := clusterCommand(t, n4, "remove", "n4", "--yes"); err == nil || !strings.Contains(out, "drain it first") {
		t.Errorf("removed with shards: %v %s", err, out)
	}
	command("accepted", "drain", "n4", "--yes")
	replicas("n4", func(n int) bool { return n == 0 })
	write(n4)
	command("accepted", "remove", "n4", "--yes")
	n4.terminate(t)
	write(c.nodes[0])
	for _, n := range c.nodes {
		l.check(t, n.base, 1000, at)
	}
	c.sameHashes(t)
}
