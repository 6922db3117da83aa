package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// TestMain builds the binary under test once.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "strandline")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "strandline")
	code := 1
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
	} else {
		code = m.Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

var binary string

// TestTellReady: the log says ready once, when /-/ready does.
func TestTellReady(t *testing.T) {
	var out bytes.Buffer
	n := &node{log: slog.New(slog.NewTextHandler(&out, nil))}
	n.stopping.Store(true) // as good a reason as any
	if n.tellReady() == nil || out.Len() > 0 {
		t.Errorf("it is not ready, and says %q", out.String())
	}
	n.stopping.Store(false)
	if n.tellReady() != nil || !strings.Contains(out.String(), "msg=ready") {
		t.Errorf("it is ready, and says %q", out.String())
	}
}

// process is a running server.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	logs *bufio.Scanner
	seen strings.Builder
}

var listening = regexp.MustCompile(`msg=listening addr=(\S+)`)

// start runs serve on dir and waits until it is ready.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(binary, append([]string{"serve", "--data", dir, "--listen", "127.0.0.1:0"}, args...)...)}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // one that has ended is no fault
	p.logs = bufio.NewScanner(stderr)
	p.url = "http://" + listening.FindStringSubmatch(p.waitFor("msg=listening"))[1]
	p.waitFor("msg=ready")
	return p
}

// waitFor reads the log up to a line that has the text.
func (p *process) waitFor(text string) string {
	p.t.Helper()
	for p.logs.Scan() {
		line := p.logs.Text()
		fmt.Fprintln(&p.seen, line)
		if strings.Contains(line, text) {
			return line
		}
	}
	err := p.cmd.Wait()
	p.t.Fatalf("the server ended (%v) before it logged %q:\n%s", err, text, p.seen.String())
	return ""
}

// stop sends SIGTERM and expects a clean end.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.waitFor("msg=stopped")
	for p.logs.Scan() {
		fmt.Fprintln(&p.seen, p.logs.Text())
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("%v\n%s", err, p.seen.String())
	}
}

func (p *process) get(path string) (int, string) {
	p.t.Helper()
	res, err := http.Get(p.url + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// write sends one sample by remote-write 1.0.
func (p *process) write(name string, at time.Time, v float64) {
	p.t.Helper()
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: name}, {Name: "job", Value: "test"}},
		Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: v}},
	}}}).Marshal()
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, p.url+"/api/v1/write", bytes.NewReader(snappy.Encode(nil, raw)))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode/100 != 2 {
		p.t.Fatalf("write: %s %s %v", res.Status, b, err)
	}
}

// expect asks by the query command and compares the one value.
func (p *process) expect(expr string, at time.Time, want string) {
	p.t.Helper()
	out, err := exec.Command(binary, "query", expr, "--server", p.url, "--time", at.UTC().Format(time.RFC3339Nano), "--format", "json").CombinedOutput()
	if err != nil {
		p.t.Fatalf("query: %v\n%s", err, out)
	}
	var r struct {
		Result []struct{ Value [2]any }
	}
	if err := json.Unmarshal(out, &r); err != nil || len(r.Result) != 1 || r.Result[0].Value[1] != want {
		p.t.Fatalf("%s: want %s, got %s (%v)", expr, want, out, err)
	}
}

func TestServeKeepsWhatItAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	at := time.Now().Truncate(time.Second)
	p := start(t, dir)
	p.write("m", at, 42)
	p.expect("m", at, "42")
	p.stop()

	p = start(t, dir)
	p.expect("m", at, "42")
	p.write("m", at.Add(time.Second), 43)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // it was killed: that is its error

	p = start(t, dir)
	p.expect("count_over_time(m[1m])", at.Add(2*time.Second), "2")
	p.expect("m", at.Add(2*time.Second), "43")
	p.stop()
	if out, err := exec.Command(binary, "check", "data", dir).CombinedOutput(); err != nil {
		t.Fatalf("check data: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"wal", filepath.Join(dir, "wal")}, {"manifest", filepath.Join(dir, "shards", "000")}, {"meta", filepath.Join(dir, "meta.db")}} {
		if out, err := exec.Command(binary, append([]string{"inspect"}, args...)...).CombinedOutput(); err != nil {
			t.Errorf("inspect %v: %v\n%s", args, err, out)
		}
	}
}

func TestServeStoresItsOwnMetrics(t *testing.T) {
	p := start(t, t.TempDir(), "--self-scrape-interval", "50ms")
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, body := p.get("/api/v1/query?query=up"); strings.Contains(body, `"job":"strandline"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no up")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if code, body := p.get("/metrics"); code != 200 || !strings.Contains(body, "go_goroutines") || !strings.Contains(body, "process_cpu_seconds_total") {
		t.Errorf("/metrics: %d %s", code, body)
	}
	p.stop()
}

func TestServeReloadsAccess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("log-level: info\n")
	p := start(t, t.TempDir(), "--config", file)
	hangUp := func(text string) string {
		t.Helper()
		put(text)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		return p.waitFor("reloaded")
	}
	status := func(want int) {
		t.Helper()
		if code, _ := p.get("/api/v1/labels"); code != want {
			t.Errorf("got %d, want %d", code, want)
		}
	}
	status(200)
	hangUp("tokens:\n- {name: ci, sha256: " + strings.Repeat("ab", 32) + ", role: admin}\nshards: 4\n")
	if line := p.waitFor("restart"); !strings.Contains(line, "shards") {
		t.Errorf("got %s", line)
	}
	status(401)
	if line := hangUp("tokens: nonsense\n"); !strings.Contains(line, "not reloaded") || !strings.Contains(line, "line 1") {
		t.Errorf("got %s", line)
	}
	status(401)
	hangUp("log-level: info\n")
	status(200)
	p.stop()
}

// TestServeTellsOfReloads: the status shows what is in force, and a reload that failed.
func TestServeTellsOfReloads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("rule-interval: 7s\n")
	p := start(t, t.TempDir(), "--config", file)
	want := func(ok bool, interval, retention string) {
		t.Helper()
		gauge := "strandline_config_last_reload_successful 0"
		if ok {
			gauge = "strandline_config_last_reload_successful 1"
		}
		for path, text := range map[string]string{
			"/api/v1/status/runtimeinfo": fmt.Sprintf(`"reloadConfigSuccess":%v`, ok),
			"/metrics":                   gauge,
			"/api/v1/status/config":      `rule-interval: '` + interval + `'`,
			"/api/v1/status/flags":       `"retention":"` + retention + `"`,
		} {
			if _, body := p.get(path); !strings.Contains(body, text) {
				t.Errorf("%s lacks %s: %s", path, text, body)
			}
		}
	}
	hangUp := func(text, log string) {
		t.Helper()
		put(text)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.waitFor(log)
	}
	want(true, "7s", "395d")
	hangUp("rule-interval: soon\n", "not reloaded")
	want(false, "7s", "395d")
	hangUp("rule-interval: 9s\nretention: 7d\n", "need a restart")
	want(true, "9s", "395d")
	p.stop()
}

// TestNotReadyWhileStopping: while a live client is waited for, no new ones are to come.
func TestNotReadyWhileStopping(t *testing.T) {
	p := start(t, t.TempDir())
	res, err := http.Get(p.url + "/api/v1/live/sse?query=up&step=1s")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.waitFor("msg=stopping")
	ready, err := http.Get(p.url + "/-/ready")
	if err != nil {
		return // nobody listens: not ready either
	}
	defer ready.Body.Close()
	if ready.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s", ready.Status)
	}
}

func TestServeRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for want, args := range map[string][]string{
		"refusing to listen beyond loopback": {"--listen", "0.0.0.0:0"},
		"flag --head-bytes: bad value":       {"--head-bytes", "much"},
		"tls-cert and tls-key":               {"--tls-cert", "x"},
	} {
		out, err := exec.Command(binary, append([]string{"serve", "--data", dir}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a refused start made the data folder")
	}
}
