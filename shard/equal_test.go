package shard

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestReplicasAreEqual: what a shard holds follows from its log alone, however much of it had
// been flushed when an entry came, or replayed, start times of samples that come again included.
func TestReplicasAreEqual(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 21))
		open := func(disk vfs.FS) *Shard {
			s, err := Open(Options{Dir: "s", FS: disk})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		disk, log := vfs.NewMem(), [][]byte{}
		flushed, whole := open(disk), open(vfs.NewMem())
		lim := &Limits{MinT: -1 << 50, MaxT: 1 << 50}
		for i := range uint64(60) {
			b := &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, labels.FromStrings("__name__", "m"))}}}
			for range 1 + rng.IntN(50) {
				b.T = append(b.T, rng.Int64N(60))
				b.V, b.ST = append(b.V, float64(rng.IntN(2))), append(b.ST, -rng.Int64N(3))
			}
			b.Series[0].To = len(b.T)
			var o Op
			key := b.Series[0].Key
			whole.Encode(&o, b, []Item{{Hash: model.HashKey(key), Key: key}}, lim)
			payload := append(PayloadHeader(nil), o.Bytes(lim)...)
			log = append(log, payload)
			for _, s := range []*Shard{flushed, whole} {
				if _, err := s.Apply(i+1, payload); err != nil {
					t.Fatal(err)
				}
			}
			switch rng.IntN(6) {
			case 0:
				if _, err := flushed.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			case 1:
				flushed.Unfreeze(flushed.Freeze())
			case 2:
				if err := flushed.Close(); err != nil {
					t.Fatal(err)
				}
				flushed = open(disk)
				for k := flushed.Applied(); k <= i; k++ {
					if _, err := flushed.Apply(k+1, log[k]); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, a, err := flushed.Hash(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, b, err := whole.Hash(t.Context()); err != nil || a != b {
				t.Fatalf("seed %d: at entry %d the hashes are %x and %x, %v", seed, i+1, a, b, err)
			}
		}
		for _, s := range []*Shard{flushed, whole} {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
