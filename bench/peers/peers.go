package peers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNotFound reports a program that is neither at the path given nor in PATH.
var ErrNotFound = errors.New("peers: program not found")

// Spec says how one kind of server is run.
type Spec struct {
	Name   string
	Binary string
	Ready  string // path that answers 200 once the server serves
	Query  string // extra query parameters for exact answers about recent data
	args   func(dir, addr string) ([]string, error)
}

// Strandline runs the built binary, with extra appended to its arguments.
func Strandline(binary string, extra ...string) Spec {
	return Spec{Name: "strandline", Binary: binary, Ready: "/-/ready", args: func(dir, addr string) ([]string, error) {
		return append([]string{"serve", "--data", filepath.Join(dir, "data"), "--listen", addr}, extra...), nil
	}}
}

// VictoriaMetrics runs a single-node VictoriaMetrics. It hides the last 30 s from queries unless told otherwise.
func VictoriaMetrics(binary string) Spec {
	return Spec{Name: "victoria-metrics", Binary: binary, Ready: "/health", Query: "&latency_offset=1ms&nocache=1",
		args: func(dir, addr string) ([]string, error) {
			return []string{"-storageDataPath=" + filepath.Join(dir, "data"), "-httpListenAddr=" + addr}, nil
		}}
}

// Prometheus runs a Prometheus that takes remote-write and scrapes nothing.
func Prometheus(binary string) Spec {
	return Spec{Name: "prometheus", Binary: binary, Ready: "/-/ready", args: func(dir, addr string) ([]string, error) {
		config := filepath.Join(dir, "prometheus.yml")
		if err := os.WriteFile(config, []byte("global: {}\n"), 0o644); err != nil {
			return nil, err
		}
		return []string{"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + addr, "--web.enable-remote-write-receiver"}, nil
	}}
}

// Find returns the path of a program: the first of candidates that exists, looked up in PATH where it has no slash.
func Find(candidates ...string) (string, error) {
	for _, c := range candidates {
		if c == "" {
			continue
		}
		if path, err := exec.LookPath(c); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("%w: %q", ErrNotFound, candidates)
}

// FreeAddr returns a loopback address that nobody listens on at the moment. Its port is
// below those that outgoing connections take, which might have it when a server starts
// again, or first starts a moment later.
func FreeAddr() (string, error) {
	var l net.Listener
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000))
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", err
}

// DirBytes returns the disk space taken by the files below dir, in bytes, as du counts it.
func DirBytes(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n, err := allocated(path)
		total += n
		return err
	})
	return total, err
}
