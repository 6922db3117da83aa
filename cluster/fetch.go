package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"github.com/strandline-db/strandline/engine"
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
func (n *Node) fetcher(shard uint64, from string) engine.Fetch {
	return func(ctx context.Context, name string, off int64, size int, use func([]byte) error) error {
		select {
		case n.fetches.slots <- struct{}{}:
			defer func() { <-n.fetches.slots }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		req := putUvarints(putBytes(nil, name), uint64(off), uint64(size))
		for try := 1; ; try++ {
			if n.fetches.limit != nil {
				if err := n.fetches.limit.WaitN(ctx, size); err != nil {
					return err
				}
			}
			b, frame, err := n.fetchPiece(ctx, shard, from, req)
			if err == nil {
				n.metrics.fetched.Add(float64(len(b)))
				err = use(b)
				n.buffers.put(frame)
				return err
			}
			if try == fetchTries || !errors.Is(err, model.ErrUnavailable) || ctx.Err() != nil {
				return err
			}
			select {
			case <-time.After(rejoinPause):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// fetchPiece returns a piece and, for buffers, what it lies in.
func (n *Node) fetchPiece(ctx context.Context, shard uint64, from string, req []byte) (b, frame []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, appendWait)
	defer cancel()
	b, err = n.bulk(from).callFor(ctx, &frame, nil, kindFetch, shard, req)
	return b, frame, err
}

// answerRoom is what an answer takes in front of its data, at most.
const answerRoom = frameHeader + 1 + 3*binary.MaxVarintLen64

// answerFetch answers with a frame of its own, so that the piece is copied nowhere.
func (n *Node) answerFetch(to *wire, id uint64, g *group, req []byte, respond func([]byte, error)) {
	frame, err := g.machine.fetch(n.buffers.get(largeBuffer)[:answerRoom], req)
	if err != nil {
		respond(nil, err)
		return
	}
	if err := sendPiece(to, id, frame); err != nil {
		respond(nil, err)
	}
}

// sendPiece answers a request with what lies in frame from answerRoom on.
func sendPiece(to *wire, id uint64, frame []byte) error {
	head := putUvarints([]byte{byte(kindAnswer)}, id, 0, uint64(len(frame)-answerRoom))
	from := answerRoom - len(head) - frameHeader
	copy(frame[answerRoom-len(head):], head)
	seal(frame[from:])
	return to.sendWhole(wholeFrame{frame, from})
}
