package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program is the program under test, set once by TestMain before any test runs.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "strandline-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	if program, err = build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func build(dir string) (string, error) {
	if given := os.Getenv("STRANDLINE_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	out := filepath.Join(dir, "strandline")
	text, err := exec.Command("go", "build", "-o", out, "..").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the binary: %w\n%s", err, text)
	}
	return out, nil
}

// need returns the path of a program, or leaves the test out; with CI=true a missing program is a failure.
func need(t *testing.T, how string, find func() (string, error)) string {
	t.Helper()
	path, err := find()
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%v; %s", err, how)
	}
	t.Skipf("%v; %s", err, how)
	return ""
}

func needNodeExporter(t *testing.T) string {
	return need(t, "apt-get install prometheus-node-exporter", func() (string, error) {
		return exec.LookPath("prometheus-node-exporter")
	})
}

// needPrometheus wants 3.16: older ones give range selectors another meaning.
func needPrometheus(t *testing.T) string {
	return need(t, "make setup", func() (string, error) {
		cached, err := filepath.Abs("../../../.cache/bin/prometheus")
		if err != nil {
			return "", err
		}
		for _, c := range []string{os.Getenv("STRANDLINE_PROMETHEUS"), cached, "prometheus"} {
			path, err := exec.LookPath(c)
			if err != nil {
				continue
			}
			// `go install` leaves the version empty in the banner, so ask the module data of the file as well.
			banner, _ := exec.Command(path, "--version").CombinedOutput()
			module, _ := exec.Command("go", "version", "-m", path).CombinedOutput()
			if strings.Contains(string(banner), "version 3.16.") || strings.Contains(string(module), "github.com/prometheus/prometheus\tv0.316.") {
				return path, nil
			}
		}
		return "", errors.New("no Prometheus 3.16")
	})
}
