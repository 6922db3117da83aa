package main

import "testing"

func TestConnectionsWithin(t *testing.T) {
	for _, c := range []struct {
		wanted int
		files  uint64
		want   int
	}{{4096, 0, 4096}, {4096, 1 << 40, 4096}, {4096, 1024, 512}, {10, 1024, 10}, {10, 1, 1}} {
		if got := connectionsWithin(c.wanted, c.files); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}
