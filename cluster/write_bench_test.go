package cluster

import "testing"

// BenchmarkForward writes a sample at a time at a node that does not lead its shard.
func BenchmarkForward(b *testing.B) {
	c := newTrio(b, Options{})
	_, from := c.leaderOf(0)
	key := c.lateSeries(0)
	c.mustPut(from, key, 0, 0)
	b.ReportAllocs()
	t := int64(0)
	for b.Loop() {
		t++
		c.mustPut(from, key, t, 1)
	}
}
