package cluster

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	maxFetch     = 1 << 20 // bytes of a block in one answer
	fetchesAhead = 16      // pieces of blocks on their way to this node, of all shards
	fetchTries   = 4       // of one piece
)

// fetches bounds what this node asks of others' blocks.
type fetches struct {
	slots chan struct{}
	limit *rate.Limiter // nil: none
}

func newFetches(bytesPerSecond int64) *fetches {
	f := &fetches{slots: make(chan struct{}, fetchesAhead)}
	if bytesPerSecond > 0 {
		f.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), maxFetch)
	}
	return f
}

// fetcher returns how to read pieces of a shard's blocks at another node. A piece is
// covered by the checksum of the frame it comes in, the whole by those in the block; a
// piece that does not come is asked for again.
func (n *Node) fetcher(shard uint64, from string) func(context.Context, string, int64, int) ([]byte, error) {
	return func(ctx context.Context, name string, off int64, size int) (b []byte, err error) {
		select {
		case n.fetches.slots <- struct{}{}:
			defer func() { <-n.fetches.slots }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		req := putUvarints(putBytes(nil, name), uint64(off), uint64(size))
		for try := 1; ; try++ {
			if n.fetches.limit != nil {
				if err := n.fetches.limit.WaitN(ctx, size); err != nil {
					return nil, err
				}
			}
			cctx, cancel := context.WithTimeout(ctx, appendWait)
			b, err = n.bulk(from).call(cctx, kindFetch, shard, req, false)
			cancel()
			if err == nil || try == fetchTries || !errors.Is(err, model.ErrUnavailable) || ctx.Err() != nil {
				n.metrics.fetched.Add(float64(len(b)))
				return b, err
			}
			select {
			case <-time.After(rejoinPause):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
}
