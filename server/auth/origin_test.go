package auth

import "testing"

func TestOwnOrigin(t *testing.T) {
	for _, c := range []struct {
		origin, host string
		own          bool
	}{
		{"https://here.example", "here.example", true},
		{"https://HERE.example", "here.example:443", true}, // a proxy that names the port
		{"http://here.example", "here.example:80", true},
		{"http://[::1]", "[::1]:80", true},
		{"https://here.example:8443", "here.example:8443", true},
		{"https://here.example", "here.example:80", false},
		{"http://here.example", "here.example:443", false},
		{"https://here.example", "here.example:8443", false},
		{"https://here.example.evil.example", "here.example:443", false},
		{"null", "here.example", false},
		{"", "", false},
	} {
		if got := OwnOrigin(c.origin, c.host); got != c.own {
			t.Errorf("a page of %q asks %q: got %v, want %v", c.origin, c.host, got, c.own)
		}
	}
}
