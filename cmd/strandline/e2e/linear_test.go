package e2e

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// linearInput is one operation on the sample of one timestamp: a write, or a read.
type linearInput struct {
	at    int64
	write bool
}

// linearModel is a cell for each timestamp, empty until its one write. A write may be
// applied more than once, which changes nothing.
var linearModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		cells := map[int64][]porcupine.Operation{}
		for _, op := range history {
			at := op.Input.(linearInput).at
			cells[at] = append(cells[at], op)
		}
		var out [][]porcupine.Operation
		for _, c := range cells {
			out = append(out, c)
		}
		return out
	},
	Init: func() any { return false },
	Step: func(state, input, output any) (bool, any) {
		if input.(linearInput).write {
			return true, true
		}
		return output.(bool) == state.(bool), state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %v", input, output) },
}

// history records operations of several clients.
type history struct {
	mu  sync.Mutex
	ops []porcupine.Operation
}

func (h *history) add(client int, in linearInput, call time.Duration, seen bool, ret time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Output: seen, Call: int64(call), Return: int64(ret)})
}

// opPatience is how long a client waits for a node that may be paused.
const opPatience = time.Second

// TestLinearizable is fault 13: reads at level linearizable while nodes are killed and
// paused and their links suffer, judged by porcupine. Half of the reads are of samples that are being
// written, at any node.
func TestLinearizable(t *testing.T) {
	const seed, clients = 13, 6
	c, m := behindProxies(t, seed)
	l := newLedger()
	first := time.Now().Add(-time.Hour).UnixMilli()
	start := time.Now()
	var h history
	var newest, done atomic.Int64 // timestamps begun, operations ended
	newest.Store(first)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(client)))
			hc := &http.Client{Timeout: opPatience}
			defer hc.CloseIdleConnections()
			for ctx.Err() == nil {
				base := "http://" + c.addrs[rnd.IntN(3)]
				if client%2 == 0 {
					at := newest.Add(1)
					body, _ := l.request(0, 1, at)
					call := time.Since(start)
					status, _, err := post(ctx, hc, base, v1, body)
					ret := time.Since(start)
					if err != nil || status/100 != 2 {
						ret = math.MaxInt64 // it may still happen
					}
					h.add(client, linearInput{at, true}, call, true, ret)
				} else {
					at := newest.Load() - int64(rnd.IntN(8))
					call := time.Since(start)
					seen, err := present(ctx, base, at)
					if err != nil {
						continue
					}
					h.add(client, linearInput{at, false}, call, seen, time.Since(start))
				}
				done.Add(1)
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, 99))
	order := rnd.Perm(len(m.faults()))
	for round := range rounds(6, 300) {
		f := m.faults()[order[round%len(order)]]
		c.strike(t, f, rnd.IntN(3), fmt.Sprintf("round %d, %s", round, f.name), func(what string) {
			before := done.Load()
			await(t, "operations "+what, func() error {
				if done.Load() < before+50 {
					return fmt.Errorf("%d (seed %d)", done.Load()-before, seed)
				}
				return nil
			})
		})
	}
	cancel()
	wg.Wait()
	reads := 0
	for _, op := range h.ops {
		if in := op.Input.(linearInput); !in.write && op.Output.(bool) {
			reads++
		}
	}
	if reads < 50 {
		t.Fatalf("void: only %d reads saw a sample", reads)
	}
	if res := porcupine.CheckOperationsTimeout(linearModel, h.ops, time.Minute); res != porcupine.Ok {
		t.Errorf("the history of %d operations is %s", len(h.ops), res)
	}
	t.Logf("%d operations, %d reads that saw a sample", len(h.ops), reads)
}

// present reads linearizably whether writer 0 has a sample at exactly this time.
func present(ctx context.Context, base string, at int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, opPatience)
	defer cancel()
	var result []struct{}
	err := query(ctx, base, "query", url.Values{"query": {`count_over_time({__name__=~".+"}[1ms])`}, "time": {fmt.Sprintf("%.3f", float64(at)/1000)}}, &result)
	return len(result) > 0, err
}
