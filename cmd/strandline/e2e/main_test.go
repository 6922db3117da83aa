package e2e

import (
	"bytes"
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

// raceExit is the exit code of a program that the race detector has ended.
const raceExit = 66

func TestMain(m *testing.M) {
	if race { // of this process it was read before, and is left as it is
		if err := os.Setenv("GORACE", fmt.Sprintf("halt_on_error=1 exitcode=%d", raceExit)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	dir, err := os.MkdirTemp("", "strandline-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	if program, err = theProgram(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func theProgram(dir string) (string, error) {
	if given := os.Getenv("STRANDLINE_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	out := filepath.Join(dir, "strandline")
	return out, build(out)
}

// build makes the binary, with the race detector if the tests have it.
func build(out string, flags ...string) error {
	args := append([]string{"build", "-o", out}, flags...)
	if race {
		args = append(args, "-race")
	}
	text, err := exec.Command("go", append(args, "..")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the binary: %w\n%s", err, text)
	}
	return nil
}

// run runs the program to its end, and returns all that it wrote.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if raced(err, out) {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out), err
}

// raced reports whether a program has a data race, by how it ended and by what it wrote: it
// may have been killed amid its report.
func raced(err error, wrote []byte) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == raceExit || bytes.Contains(wrote, []byte("WARNING: DATA RACE"))
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
