package cluster

import (
	"context"
	"errors"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// pieceCache bounds what a selection at another node keeps here of series that came in
// one piece with those that were asked for, in bytes.
const pieceCache = 16 << 20

// What kindNames asks for.
const (
	askNames = iota
	askValues
	askExemplars
)

// remoteSelection is the client's end of a selection at another node. Samples come when
// they are read, in pieces.
type remoteSelection struct {
	link   *link
	ctx    context.Context
	cancel context.CancelFunc
	id     uint64
	total  int           // series
	asking chan struct{} // holds a token while a request is under way
	mu     struct {
		sync.Mutex
		pieces map[int][]byte // whole series that nobody has read yet
		order  []int
		bytes  int
	}
}

// selectAt opens selections of shards at a node, which sees them at one instant. One of an
// earlier version can't, and is asked for one after another.
func (n *Node) selectAt(ctx context.Context, at synced, shards []int, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	b := n.bulk(at.name)
	out, err := b.open(ctx, at.life, shards, reqs)
	if len(reqs) == 1 || !errors.Is(err, errMessage) {
		return out, err
	}
	for i := range reqs {
		one, err := b.open(ctx, at.life, shards, reqs[i:i+1])
		if err != nil {
			model.CloseAll(out)
			return nil, err
		}
		out = append(out, one...)
	}
	return out, nil
}

// open opens selections of shards at the link's node.
func (l *link) open(ctx context.Context, life uint64, shards []int, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	late := func(b []byte, err error) { // nobody waits for it any more
		if err == nil {
			for _, r := range l.opened(&decoder{b: b}, len(reqs)) {
				r.close()
			}
		}
	}
	b, err := l.callFor(ctx, nil, late, kindSelect, 0, putSelect(putUvarints(nil, life), shards, reqs...))
	if err != nil {
		return nil, err
	}
	d := &decoder{b: b}
	all := l.opened(d, len(reqs))
	if d.bad {
		return nil, errMessage
	}
	if all == nil {
		return nil, model.TooManySeries(reqs[0].MaxSeries)
	}
	out := make([]*model.Selection, len(all))
	for i, r := range all {
		r.ctx, r.cancel = context.WithCancel(ctx)
		context.AfterFunc(r.ctx, r.close) // after Release, or when the reader has left
		out[i] = &model.Selection{Release: r.cancel}
	}
	for i, r := range all {
		if err = r.keys(out[i], d); err != nil {
			break
		}
	}
	if err == nil {
		err = d.end()
	}
	if err != nil {
		model.CloseAll(out)
		return nil, err
	}
	return out, nil
}

// opened decodes which selections an answer of kindSelect has opened; none if they have too
// many series.
func (l *link) opened(d *decoder, n int) (all []*remoteSelection) {
	if d.bool() {
		return nil
	}
	for range n {
		r := &remoteSelection{link: l, id: d.uvarint(), total: d.count(), asking: make(chan struct{}, 1)}
		if r.mu.pieces = map[int][]byte{}; !d.bad {
			all = append(all, r)
		}
	}
	return all
}

// close ends the other end's selection.
func (r *remoteSelection) close() {
	r.link.start(kindClose, 0, putUvarints(nil, r.id), func([]byte, error) {})
}

// keys makes the selection's series, whose keys come in pieces, the first from d.
func (r *remoteSelection) keys(sel *model.Selection, d *decoder) error {
	for !d.bad && len(sel.Series) < r.total {
		if len(d.b) == 0 {
			b, err := r.link.call(r.ctx, kindRead, 0, putUvarints(putBool(putUvarints(nil, r.id), true), uint64(len(sel.Series)), 0, 0))
			if err != nil {
				return err
			}
			if d = (&decoder{b: b}); len(b) == 0 {
				return errMessage
			}
		}
		sel.Series = append(sel.Series, &remoteSeries{r: r, i: len(sel.Series), labels: d.labels()})
	}
	if d.bad {
		return errMessage
	}
	return nil
}

// remoteSeries is a model.Series at another node.
type remoteSeries struct {
	r      *remoteSelection
	i      int
	labels labels.Labels
}

// Labels implements model.Series.
func (s *remoteSeries) Labels() labels.Labels { return s.labels }

// Read implements model.Series.
func (s *remoteSeries) Read(dst *model.Columns) error {
	r := s.r
	select {
	case r.asking <- struct{}{}:
		defer func() { <-r.asking }()
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
	if b := r.take(s.i); b != nil {
		d := &decoder{b: b}
		d.columns(dst)
		return d.end()
	}
	floats, hists := len(dst.T), len(dst.Hist)
	for {
		req := putUvarints(putBool(putUvarints(nil, r.id), false), uint64(s.i), uint64(len(dst.T)-floats), uint64(len(dst.Hist)-hists))
		b, err := r.link.call(r.ctx, kindRead, 0, req)
		if err != nil {
			return err
		}
		answer := &decoder{b: b}
		d := &decoder{b: answer.bytes()}
		more := d.columns(dst)
		if err := d.end(); err != nil || answer.bad {
			return errMessage
		}
		if !more {
			return r.keep(answer, s.i+1)
		}
	}
}

// take hands out a series that came with another.
func (r *remoteSelection) take(i int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.mu.pieces[i]
	delete(r.mu.pieces, i)
	r.mu.bytes -= len(b)
	return b
}

// keep puts aside the whole series, from a number on, that the rest of an answer holds.
func (r *remoteSelection) keep(d *decoder, i int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ; len(d.b) > 0 && !d.bad; i++ {
		piece := d.bytes()
		if len(piece) == 0 || piece[len(piece)-1] != 0 {
			break // it goes on in another, and is asked for when it is read
		}
		if r.mu.pieces[i] == nil {
			r.mu.pieces[i] = piece
			r.mu.order = append(r.mu.order, i)
			r.mu.bytes += len(piece)
		}
	}
	for r.mu.bytes > pieceCache && len(r.mu.order) > 0 {
		old := r.mu.order[0]
		r.mu.order = r.mu.order[1:]
		r.mu.bytes -= len(r.mu.pieces[old])
		delete(r.mu.pieces, old)
	}
	if d.bad {
		return errMessage
	}
	return nil
}
