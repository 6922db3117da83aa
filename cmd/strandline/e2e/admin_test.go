package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// adminCase is a request of an admin endpoint and the answer to it.
type adminCase struct {
	method, path, params string
	want                 int
	text                 string // in the answer
}

// check asks a server with a token, if one is given.
func (c *adminCase) check(t *testing.T, base, token string) {
	t.Helper()
	params, err := url.ParseQuery(c.params)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), c.method, base+"/api/v1/"+c.path, strings.NewReader(params.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != c.want || !strings.Contains(string(body), c.text) {
		t.Errorf("%s %s %s: %s %s, want %d and %q", c.method, c.path, c.params, res.Status, body, c.want, c.text)
	}
	if (res.StatusCode == http.StatusServiceUnavailable) != (res.Header.Get("Retry-After") != "") {
		t.Errorf("%s %s: %s with Retry-After %q", c.method, c.path, res.Status, res.Header.Get("Retry-After"))
	}
}

// adminPosts are the endpoints that change something.
var adminPosts = []string{"admin/backup", "admin/cluster/move", "admin/cluster/rebalance", "admin/cluster/drain", "admin/cluster/add",
	"admin/cluster/remove", "admin/cluster/transfer-leader", "admin/cluster/pause", "admin/cluster/resume", "admin/cluster/cancel"}

// TestAdminOfOneNode: a single node without a backup-dir says so, and what needs a
// cluster; only the role admin comes that far.
func TestAdminOfOneNode(t *testing.T) {
	dir := t.TempDir()
	tokens := map[string]string{"admin": "for-admin", "read": "for-read", "write": "for-write"}
	text := "tokens:\n"
	for role, token := range tokens {
		text += fmt.Sprintf("- {name: %s, sha256: %x, role: %s}\n", role, sha256.Sum256([]byte(token)), role)
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	s := &strandline{child: start(t, program, "serve", "--data", filepath.Join(dir, "data"), "--listen", addr, "--config", config,
		"--shards", "2", "--self-scrape-interval=0"), base: "http://" + addr}
	awaitReady(t, s.child, s.base+"/-/ready")
	for _, path := range adminPosts {
		text := "single node"
		if path == "admin/backup" {
			text = "backups are off"
		}
		for _, c := range []struct {
			token string
			adminCase
		}{
			{"for-admin", adminCase{http.MethodPost, path, "", http.StatusBadRequest, text}},
			{"for-admin", adminCase{http.MethodGet, path, "", http.StatusMethodNotAllowed, ""}},
			{"for-read", adminCase{http.MethodPost, path, "", http.StatusForbidden, "admin"}},
			{"for-write", adminCase{http.MethodPost, path, "", http.StatusForbidden, "admin"}},
			{"", adminCase{http.MethodPost, path, "", http.StatusUnauthorized, ""}},
			{"wrong", adminCase{http.MethodPost, path, "", http.StatusUnauthorized, ""}},
		} {
			c.check(t, s.base, c.token)
		}
	}
	for _, path := range []string{"admin/cluster/plan", "admin/cluster/hash"} {
		(&adminCase{http.MethodGet, path, "", http.StatusBadRequest, "single node"}).check(t, s.base, "for-admin")
		(&adminCase{http.MethodGet, path, "", http.StatusForbidden, "admin"}).check(t, s.base, "for-read")
	}
	(&adminCase{http.MethodGet, "cluster/status", "", http.StatusBadRequest, "single node"}).check(t, s.base, "for-read")
	(&adminCase{http.MethodGet, "cluster/status", "", http.StatusForbidden, ""}).check(t, s.base, "for-write")
}

// TestAdminOfCluster: every node, whatever it leads, gives the same answer to what it can't
// do, and without a majority none hangs.
func TestAdminOfCluster(t *testing.T) {
	dir := t.TempDir()
	c := newTrio(t, func(name string) []string {
		return []string{"--shards", "2", "--backup-dir", filepath.Join(dir, name)}
	})
	post := func(path, params string, want int, text string) *adminCase {
		return &adminCase{http.MethodPost, path, params, want, text}
	}
	await(t, "the cluster's map", func() error { // until then all answer 503
		return getJSON(t.Context(), c.nodes[0].base+"/api/v1/admin/cluster/plan", &struct{}{})
	})
	for _, n := range c.nodes {
		for _, a := range []*adminCase{
			post("admin/cluster/move", "", 400, "shard"),
			post("admin/cluster/move", "shard=0&form=n1&to=n2", 400, "known are shard, from, to"),
			post("admin/cluster/pause", "node=n1", 400, "takes none"),
			{http.MethodGet, "cluster/status?verbose=1", "", 400, "takes none"},
			post("admin/cluster/move", "shard=x&from=n1&to=n2", 400, "shard"),
			post("admin/cluster/move", "shard=99&from=n1&to=n2", 422, "no shard 99"),
			post("admin/cluster/move", "shard=-1&from=n1&to=n2", 422, "no shard -1"),
			post("admin/cluster/move", "shard=0&from=n9&to=n1", 422, "not on node n9"),
			post("admin/cluster/move", "shard=0&from=n1&to=n2", 422, "already"),
			post("admin/cluster/move", "shard=0&from=n1&to=n9", 422, "no member"),
			post("admin/cluster/move", "shard=0", 422, "no replica"),
			post("admin/cluster/transfer-leader", "node=n1", 400, "shard"),
			post("admin/cluster/transfer-leader", "shard=0&node=n9", 422, "n9"),
			post("admin/cluster/transfer-leader", "shard=99&node=n1", 422, "no shard 99"),
			post("admin/cluster/drain", "node=n9", 422, "n9"),
			post("admin/cluster/drain", "", 422, "no node"),
			post("admin/cluster/add", "node=n9", 422, "n9"),
			post("admin/cluster/remove", "node=n9", 422, "n9"),
			post("admin/cluster/remove", "node=n1", 422, ""),
			post("admin/cluster/pause", "", 422, "no plan"),
			post("admin/cluster/resume", "", 422, "no plan"),
			post("admin/cluster/cancel", "", 422, "no plan"),
			post("admin/cluster/rebalance", "plan=nonsense", 422, ""),
			post("admin/backup", "", 400, "name"),
			post("admin/backup", "name=../x", 400, "name"),
			post("admin/backup", "name=one", 200, "success"),
			post("admin/backup", "name=one", 409, "there is a backup"),
			{http.MethodGet, "admin/cluster/plan?node=n9", "", 422, "n9"},
			{http.MethodGet, "admin/cluster/plan", "", 200, "success"},
			{http.MethodGet, "admin/cluster/hash?consistency=none", "", 400, "consistency"},
			{http.MethodDelete, "admin/cluster/plan", "", 405, ""},
		} {
			a.check(t, n.base, "")
		}
	}
	c.nodes[1].kill(t)
	c.nodes[2].kill(t)
	for _, a := range []*adminCase{
		post("admin/cluster/move", "shard=0&from=n1&to=n2", 503, ""),
		post("admin/cluster/transfer-leader", "shard=0&node=n1", 503, ""),
		post("admin/cluster/pause", "", 503, ""),
		post("admin/backup", "name=two", 503, ""),
	} {
		t.Run(a.path, func(t *testing.T) {
			t.Parallel() // each waits as long as a write would
			a.check(t, c.nodes[0].base, "")
		})
	}
}
