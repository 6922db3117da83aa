package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// clusterCommand runs a subcommand of cluster against a node.
func clusterCommand(t *testing.T, n *strandline, args ...string) (string, error) {
	t.Helper()
	return run(t, append([]string{"cluster", args[0], "--server", n.base}, args[1:]...)...)
}

// aggregated has an aggregation over all of a ledger's series at a node, and returns how
// many of those the nodes have worked out for each other by then.
func aggregated(t *testing.T, c *trio, n *strandline, ms int64, want int) (fragments int) {
	t.Helper()
	var v struct{ Result []struct{ Value [2]any } }
	url := fmt.Sprintf("%s/api/v1/query?query=count({__name__!=\"\"})&time=%.3f", n.base, float64(ms)/1000)
	if err := getJSON(t.Context(), url, &v); err != nil || len(v.Result) != 1 || v.Result[0].Value[1] != fmt.Sprint(want) {
		t.Fatalf("%v, %+v, want %d", err, v, want)
	}
	for _, n := range c.nodes {
		res, err := http.Get(n.base + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		_, count, _ := strings.Cut(string(b), "\nstrandline_cluster_fragments_total ")
		more := 0
		if _, err := fmt.Sscan(count, &more); err != nil {
			t.Fatal(err)
		}
		fragments += more
	}
	return fragments
}

// aggregateElsewhere asks a node that holds everything, and one that holds nothing.
func aggregateElsewhere(t *testing.T, c *trio, n4 *strandline, ms int64) {
	t.Helper()
	if n := aggregated(t, c, c.nodes[1], ms, 50); n != 0 {
		t.Errorf("%d aggregations were worked out for a node that holds everything", n)
	}
	if n := aggregated(t, c, n4, ms, 50); n == 0 {
		t.Error("no aggregation was worked out for the node that holds nothing")
	}
}

// fourth starts a node that enters the cluster.
func (c *trio) fourth(t *testing.T) *strandline {
	t.Helper()
	n := c.launchFourth(t, freeAddr(t), freeAddr(t))
	awaitReady(t, n.child, n.base+"/-/ready")
	return n
}

// launchFourth starts it with the addresses of its server and for its peers, and waits for nothing.
func (c *trio) launchFourth(t *testing.T, addr, listen string) *strandline {
	t.Helper()
	seed := strings.Split(strings.Split(c.peers, ",")[1], "=")[1]
	args := append([]string{"serve", "--data", filepath.Join(c.dir, "n4"), "--listen", addr, "--retention=0", "--self-scrape-interval=0",
		"--cluster-node", "n4", "--cluster-listen", listen, "--cluster-join", seed, "--consistency", "linearizable",
		"--backup-dir", filepath.Join(c.dir, "backups")}, append(c.more("n4"), tinyFlush()...)...)
	return &strandline{child: start(t, program, args...), base: "http://" + addr}
}

// backUpElsewhere has a node that holds nothing make a backup of the cluster, and serves what
// is restored from it.
func backUpElsewhere(t *testing.T, c *trio, l *ledger, n *strandline, to int64) {
	t.Helper()
	strand(t, "backup", "--server", n.base, "far")
	t.Log(strand(t, "backup", "verify", filepath.Join(c.dir, "backups", "far")))
	data := filepath.Join(c.dir, "restored")
	strand(t, "restore", "--from", filepath.Join(c.dir, "backups", "far"), "--data", data)
	s := serve(t, data)
	l.check(t, s.base, 1000, to)
	s.terminate(t)
}

// TestFourthProcess: a node enters a running cluster over mutual TLS, gets its part, serves
// all, gives it back and leaves, by the commands that a user has.
func TestFourthProcess(t *testing.T) {
	tls := certificates(t, "n1", "n2", "n3", "n4")
	more := func(name string) []string { return append([]string{"--shards", "4"}, tls(name)...) }
	c, l := newTrio(t, more), newLedger()
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
	n4 := c.fourth(t)
	write(n4) // which holds nothing
	l.check(t, n4.base, 1000, at)
	aggregateElsewhere(t, c, n4, at)
	backUpElsewhere(t, c, l, n4, at)

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
