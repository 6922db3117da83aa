package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckConfigFindsWhatServeRefuses: what the one says of a file, the other does too.
func TestCheckConfigFindsWhatServeRefuses(t *testing.T) {
	const node = "cluster-node: n1\n"
	for want, text := range map[string]string{
		"tls-cert and tls-key: open nope":   "tls-cert: nope\ntls-key: nope\n",
		"audit-log: ":                       "audit-log: /nope/audit.log\n",
		"refusing to listen":                "listen: :9595\n",
		"is not name=host:port":             node + "cluster-peers: n1\n",
		`"n1" is not among them`:            node + "cluster-peers: n2=127.0.0.1:1\n",
		"two nodes survive no failure":      node + "cluster-peers: n1=127.0.0.1:1,n2=127.0.0.1:2\n",
		"nodes beyond loopback need":        node + "cluster-peers: n1=10.0.0.1:1\n",
		"cluster-heartbeat must be":         node + "cluster-peers: n1=127.0.0.1:1\ncluster-heartbeat: 1ms\n",
		"cluster-listen: address foo":       node + "cluster-peers: n1=127.0.0.1:1\ncluster-listen: foo\n",
		"cluster certificates: open":        node + "cluster-peers: n1=127.0.0.1:1\ncluster-tls-cert: a\ncluster-tls-key: b\ncluster-tls-ca: c\n",
		`rule file: "/nope.yml"`:            "rule-files: /nope.yml\n",
		"cluster-join: address 127.0.0.1:":  node + "cluster-listen: 127.0.0.1:1\ncluster-join: 127.0.0.1\n",
		"cluster-join: 127.0.0.1:1 is this": node + "cluster-listen: 127.0.0.1:1\ncluster-join: 127.0.0.1:1\n",
		"n2 and n3 have the same address":   node + "cluster-peers: n1=127.0.0.1:1,n2=127.0.0.1:2,n3=127.0.0.1:2\n",
		"is no address that another node ":  node + "insecure: true\ncluster-peers: n1=0.0.0.0:1\n",
	} {
		file := filepath.Join(t.TempDir(), "config.yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(binary, "check", "config", file).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: want %q, got %v %s", text, want, err, out)
			continue // serve might begin, and go on
		}
		data := filepath.Join(t.TempDir(), "data")
		if out, err := exec.Command(binary, "serve", "--config", file, "--data", data).CombinedOutput(); err == nil {
			t.Errorf("%s: serve began: %s", text, out)
		}
	}
}

// TestCheckConfigTakesFlags: a file that is to be completed by flags is judged with them.
func TestCheckConfigTakesFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(file, []byte("listen: 0.0.0.0:9595\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "check", "config", file, "--insecure").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestTwoPeersOfARunningCluster: the folder of a node that has formed a cluster goes with a list of two,
// to which the cluster may have shrunk.
func TestTwoPeersOfARunningCluster(t *testing.T) {
	file, data := filepath.Join(t.TempDir(), "config.yml"), t.TempDir()
	text := "cluster-node: n1\ncluster-peers: n1=127.0.0.1:1,n2=127.0.0.1:2\ndata: " + data + "\n"
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(filepath.Join(data, "CLUSTER"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "check", "config", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
