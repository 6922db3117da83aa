package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	maxAskBytes = 16 << 20 // of an answer
	maxAskPath  = 64 << 10 // of a path and query
	askWait     = 5 * time.Second
)

// Answerer answers a GET of the HTTP API on another node's behalf, which has checked who
// asks: the status and the body. Which paths it serves is for it to say.
type Answerer func(ctx context.Context, path, query string) (status int, body []byte)

// Answer sets who answers what other nodes ask with AskMetadataLeader.
func (n *Node) Answer(a Answerer) { n.asked.Store(&a) }

// AskMetadataLeader asks the leader of the metadata's group for path?query, within 5 s: again
// when the one that was asked leads no more or does not answer, and no longer once this node
// reaches no majority. The error is model.ErrUnavailable if it can't be asked.
func (n *Node) AskMetadataLeader(ctx context.Context, path, query string) (status int, body []byte, err error) {
	if len(path)+len(query) > maxAskPath {
		return 0, nil, fmt.Errorf("%w: the path and query have %d bytes", model.ErrLimit, len(path)+len(query))
	}
	ctx, cancel := n.whileReached(ctx, askWait, []uint64{uint64(metaStream)})
	defer cancel()
	data := putBytes(putBytes(nil, path), query)
	for {
		b, err := n.askLeading(ctx, data)
		if err == nil {
			return parseAnswer(b)
		}
		if !errors.Is(err, model.ErrUnavailable) || n.pause(ctx) != nil {
			return 0, nil, err
		}
	}
}

// askLeading is one attempt to ask.
func (n *Node) askLeading(ctx context.Context, data []byte) ([]byte, error) {
	l, err := n.leadOf(ctx, uint64(metaStream))
	if err != nil {
		return nil, err
	}
	var groups []*group
	if g := n.group(uint64(metaStream)); g != nil {
		groups = append(groups, g)
	}
	ctx, cancel := n.whileLed(ctx, l.name, groups)
	defer cancel()
	b, err := n.call(ctx, l.name, kindAsk, uint64(metaStream), data)
	if err != nil {
		n.leaders.forget(uint64(metaStream))
	}
	return b, err
}

func parseAnswer(b []byte) (status int, body []byte, err error) {
	d := &decoder{b: b}
	code, body := d.uvarint(), d.bytes()
	if code < 100 || code > 599 {
		return 0, nil, errMessage
	}
	return int(code), body, d.end()
}

func (n *Node) answerAsk(ctx context.Context, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	path, query := string(d.bytes()), string(d.bytes())
	if err := d.end(); err != nil {
		return nil, err
	}
	a := n.asked.Load()
	if a == nil || !n.LeadsMetadata() {
		return nil, errNotLeader
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	status, body := (*a)(ctx, path, query)
	if len(body) > maxAskBytes {
		return nil, fmt.Errorf("%w: the answer has %d bytes", model.ErrLimit, len(body))
	}
	return putBytes(putUvarints(nil, uint64(status)), body), nil
}
