package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
)

// TestReloadEndsTheLiveConnectionsOfWhoWasRemoved: SIGHUP takes a token away, whose
// connections end, and those of another go on.
func TestReloadEndsTheLiveConnectionsOfWhoWasRemoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yml")
	put := func(tokens ...string) {
		t.Helper()
		text := "tokens:\n"
		for _, token := range tokens {
			sum := sha256.Sum256([]byte(token))
			text += fmt.Sprintf("- {name: %s, sha256: %s, role: read}\n", token, hex.EncodeToString(sum[:]))
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("goes", "stays")
	p := start(t, t.TempDir(), "--config", file)
	defer p.stop()
	dial := func(path, token, msg string) *websocket.Conn {
		t.Helper()
		d := websocket.Dialer{Subprotocols: []string{"strandline.v1", "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))}}
		ws, res, err := d.Dial("ws"+strings.TrimPrefix(p.url, "http")+path, nil)
		if err != nil {
			t.Fatal(err, res)
		}
		t.Cleanup(func() { _ = ws.Close() })
		if err := ws.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
			t.Fatal(err)
		}
		return ws
	}
	const subscribe = `{"op":"subscribe","id":"a","query":"vector(1)","step":"100ms"}`
	goes := []*websocket.Conn{dial("/api/v1/live", "goes", subscribe), dial("/api/v1/metrics/stream", "goes", `{"action":"subscribe","metric":"m"}`)}
	stays := dial("/api/v1/live", "stays", subscribe)
	req, err := http.NewRequest(http.MethodGet, p.url+"/api/v1/live/sse?query=vector(1)", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer goes")
	events, err := http.DefaultClient.Do(req)
	if err != nil || events.StatusCode != 200 {
		t.Fatal(events, err)
	}
	defer events.Body.Close()
	put("stays")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.waitFor("config reloaded")
	for _, ws := range goes {
		for {
			_ = ws.SetReadDeadline(time.Now().Add(30 * time.Second)) // a failure shows in the read
			_, _, err := ws.ReadMessage()
			if err == nil {
				continue
			}
			if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
				t.Errorf("got %v", err)
			}
			break
		}
	}
	if body, err := io.ReadAll(events.Body); err != nil || !strings.Contains(string(body), "access was withdrawn") {
		t.Errorf("%v, got %s", err, body)
	}
	for n := 0; n < 30; n++ { // more than can have been on its way
		_ = stays.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, _, err := stays.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReloadOfNames: by which names the server may be asked, and whose pages may open live queries, is taken over
// without a restart.
func TestReloadOfNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("hosts: [old.example]\nlive-origins: https://old.example\n")
	p := start(t, t.TempDir(), "--config", file)
	defer p.stop()
	ask := func(host, origin string) int {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, p.url+"/api/v1/live/sse?query=", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Origin", origin)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close() // nothing of it is read
		return res.StatusCode
	}
	expect := func(now, other string) {
		t.Helper()
		for host, want := range map[string]int{now: http.StatusBadRequest, other: http.StatusMisdirectedRequest} { // the query is empty
			if got := ask(host, "https://"+now); got != want {
				t.Errorf("asked as %s: got %d, want %d", host, got, want)
			}
		}
		if got := ask(now, "https://"+other); got != http.StatusForbidden {
			t.Errorf("a page of %s: got %d", other, got)
		}
	}
	expect("old.example", "new.example")
	put("hosts: [new.example]\nlive-origins: https://new.example\n")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.waitFor("config reloaded")
	expect("new.example", "old.example")
}
