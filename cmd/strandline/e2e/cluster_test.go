package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// trio is three real processes, on loopback or each in a network namespace.
type trio struct {
	dir     string
	peers   string
	addrs   [3]string // of the HTTP servers
	command [3][]string
	nodes   [3]*strandline
	more    func(name string) []string // arguments
	counts  map[string]int             // of faults
}

// newTrio starts a cluster; linearizable reads are the default, so that a check sees
// all that was acknowledged.
func newTrio(t *testing.T, more func(name string) []string) *trio {
	t.Helper()
	c := &trio{dir: t.TempDir(), more: more}
	c.place(t)
	c.form(t)
	return c
}

// place chooses addresses, each another one.
func (c *trio) place(t *testing.T) {
	t.Helper()
	var peers []string
	free := freeAddrs(t, 2*len(c.nodes))
	for i := range c.nodes {
		c.addrs[i] = free[2*i]
		peers = append(peers, fmt.Sprintf("n%d=%s", i+1, free[2*i+1]))
	}
	c.peers = strings.Join(peers, ",")
}

// form starts all three and waits until they are ready.
func (c *trio) form(t *testing.T) {
	t.Helper()
	c.counts = map[string]int{}
	for i := range c.nodes {
		c.launch(t, i)
	}
	for i := range c.nodes {
		c.await(t, i)
	}
}

// throughCluster starts a cluster of one shard and returns a node that leads neither
// it nor the metadata: what is asked of it goes to others.
func throughCluster(t *testing.T, _ string, args ...string) *strandline {
	t.Helper()
	c := newTrio(t, func(string) []string { return append([]string{"--shards", "1"}, args...) })
	var idle *strandline
	await(t, "a node that leads nothing", func() error {
		for _, n := range c.nodes {
			var s struct{ Groups []struct{ Leads bool } }
			if err := getJSON(t.Context(), n.base+"/api/v1/cluster/status", &s); err != nil {
				return err
			}
			if len(s.Groups) > 0 && !slices.ContainsFunc(s.Groups, func(g struct{ Leads bool }) bool { return g.Leads }) {
				idle = n
				return nil
			}
		}
		return fmt.Errorf("all lead something")
	})
	return idle
}

// servers are the ways to serve in tests that must not tell the difference.
func servers() map[string]func(*testing.T, string, ...string) *strandline {
	return map[string]func(*testing.T, string, ...string) *strandline{"one node": serve, "through a cluster": throughCluster}
}

// launch starts a process and waits for nothing.
func (c *trio) launch(t *testing.T, i int) {
	t.Helper()
	name := fmt.Sprintf("n%d", i+1)
	args := append([]string{"serve", "--data", filepath.Join(c.dir, name), "--listen", c.addrs[i], "--retention=0", "--self-scrape-interval=0",
		"--cluster-node", name, "--cluster-peers", c.peers, "--consistency", "linearizable"}, tinyFlush()...)
	if c.more != nil {
		args = append(args, c.more(name)...)
	}
	args = append(append(slices.Clone(c.command[i]), program), args...)
	c.nodes[i] = &strandline{child: start(t, args[0], args[1:]...), base: "http://" + c.addrs[i]}
}

func (c *trio) await(t *testing.T, i int) {
	t.Helper()
	awaitReady(t, c.nodes[i].child, c.nodes[i].base+"/-/ready")
}

// sameHashes is fault 14: all replicas hold the same at the same index.
func (c *trio) sameHashes(t *testing.T) {
	t.Helper()
	type hash struct {
		Shard int
		Index uint64
		Hash  string
	}
	await(t, "the same index on all nodes", func() error {
		var all [3][]hash
		for i, n := range c.nodes {
			if err := getJSON(t.Context(), n.base+"/api/v1/admin/cluster/hash", &all[i]); err != nil {
				return err
			}
		}
		if len(all[0]) == 0 {
			t.Fatal("no shard was hashed")
		}
		for i := range all {
			for k, h := range all[i] {
				if want := all[0][k]; h.Index != want.Index {
					return fmt.Errorf("shard %d: n1 is at %d, n%d at %d", k, want.Index, i+1, h.Index)
				} else if h != want {
					t.Fatalf("shard %d at index %d: n1 has %s, n%d has %s", k, h.Index, want.Hash, i+1, h.Hash)
				}
			}
		}
		return nil
	})
}

// getJSON reads the data of an answer.
func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		return err
	}
	if body.Status != "success" {
		return fmt.Errorf("%s: %s", res.Status, body.Error)
	}
	return json.Unmarshal(body.Data, into)
}

// certificates makes some with the command, and returns the flags that a node is given.
func certificates(t *testing.T, names ...string) func(name string) []string {
	t.Helper()
	certs := filepath.Join(t.TempDir(), "certs")
	strand(t, append([]string{"cluster", "certs", "--dir", certs}, names...)...)
	return func(name string) []string {
		file := filepath.Join(certs, name)
		return []string{"--cluster-tls-cert", file + ".crt", "--cluster-tls-key", file + ".key", "--cluster-tls-ca", filepath.Join(certs, "ca.crt")}
	}
}

// TestClusterTLS: with certificates from the command nodes form a cluster; one whose
// certificate is another node's is not let in, and both sides say so.
func TestClusterTLS(t *testing.T) {
	flags := certificates(t, "n1", "n2", "n3")
	c, l := newTrio(t, flags), newLedger()
	body, done := l.request(0, 10, 1000)
	if status, text, err := post(t.Context(), http.DefaultClient, c.nodes[1].base, v1, body); err != nil || status != http.StatusNoContent {
		t.Fatalf("%v %d %s", err, status, text)
	}
	done()
	for i := range c.nodes {
		l.check(t, c.nodes[i].base, 1000, 1001)
	}
	c.nodes[2].kill(t)
	c.more = func(string) []string { return flags("n1") }
	c.launch(t, 2)
	for i, want := range map[int]string{0: "calls itself n3", 2: "or it refuses this node"} {
		await(t, fmt.Sprintf("a refusal in the log of n%d", i+1), func() error {
			if !strings.Contains(string(c.nodes[i].tail()), want) {
				return fmt.Errorf("there is none")
			}
			return nil
		})
	}
	var s struct {
		Peers []struct {
			Name      string
			Connected bool
		}
	}
	if err := getJSON(t.Context(), c.nodes[0].base+"/api/v1/cluster/status", &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Peers) != 2 || s.Peers[1].Connected {
		t.Errorf("n1 talks to a node with another's certificate: %+v", s)
	}
}

// writeFor sends a body to a node, which must take it, and returns the write's token.
func writeFor(t *testing.T, base string, body []byte) (token string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", v1)
	req.Header.Set("Content-Encoding", "snappy")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	token = res.Header.Get("X-Strandline-Applied")
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusNoContent || token == "" {
		t.Fatalf("%v %s %q", err, res.Status, token)
	}
	return token
}

// TestReadYourWrites: the token of a write makes it visible at another node at once.
func TestReadYourWrites(t *testing.T) {
	c, l := newTrio(t, nil), newLedger()
	now := time.Now().UnixMilli()
	for i := range 30 {
		body, done := l.request(0, 1, now+int64(i))
		token := writeFor(t, c.nodes[i%3].base, body)
		done()
		get, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			c.nodes[(i+1)%3].base+fmt.Sprintf("/api/v1/query?consistency=stale&query=count_over_time({__name__!=\"\"}[1m])&time=%.3f", float64(now+int64(i))/1000), nil)
		if err != nil {
			t.Fatal(err)
		}
		get.Header.Set("X-Strandline-Applied", token)
		res, err := http.DefaultClient.Do(get)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || len(answer.Data.Result) != 1 || answer.Data.Result[0].Value[1] != fmt.Sprint(i+1) {
			t.Fatalf("write %d: %v, %+v", i, err, answer)
		}
		if res.Header.Get("X-Strandline-Staleness") == "" {
			t.Error("a stale answer does not say how old it may be")
		}
	}
}
