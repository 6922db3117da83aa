package cluster

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// TestCountedAnywhere: whether a write is taken by the leader, a follower, a node without a
// replica, or one that must send it around by another, what is older than a cut in the log
// is not counted as written.
func TestCountedAnywhere(t *testing.T) {
	c := newTrio(t, Options{})
	leader, follower := c.leaderOf(0)
	c.mustWrite("n1", 0, 1)
	c.join("n4", "n1")
	cut := engine.Op{Bytes: binary.AppendVarint([]byte{'C'}, 1000)} // as shard.AppendCutOp
	if err := c.nodes[leader].node.Commit(t.Context(), []engine.Op{cut}); err != nil {
		t.Fatal(err)
	}
	b := &model.Batch{
		Series: []model.BatchSeries{{Key: c.lateSeries(0), To: 3, HTo: 2, ETo: 2}},
		T:      []int64{998, 999, 2000}, V: []float64{1, 2, 3},
		Hist:      []model.HistogramSample{{T: 997, H: tsdbutil.GenerateTestHistogram(1)}, {T: 2001, FH: tsdbutil.GenerateTestFloatHistogram(2)}},
		Exemplars: []model.Exemplar{{T: 996, Value: 1}, {T: 2002, Value: 2}},
	}
	write := func(by string) {
		t.Helper()
		res, err := c.nodes[by].db.Append(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if res.Samples != 1 || res.Histograms != 1 || res.Exemplars != 1 {
			t.Errorf("%s: %+v", by, res)
		}
		if len(res.Rejected) != 1 || !errors.Is(res.Rejected[0].Err, model.ErrTooOld) {
			t.Errorf("%s: rejected %v", by, res.Rejected)
		}
	}
	for _, by := range []string{leader, follower, "n4"} {
		write(by)
	}
	c.net.part(c.peers[follower], c.peers[leader], true)
	write(follower)
}
