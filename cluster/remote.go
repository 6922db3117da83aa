package cluster

import (
	"context"
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
	asking chan struct{} // holds a token while a request is under way
	mu     struct {
		sync.Mutex
		pieces map[int][]byte // whole series that nobody has read yet
		order  []int
		bytes  int
	}
}

// selectAt opens a selection of shards at a node.
func (n *Node) selectAt(ctx context.Context, at synced, shards []int, req *model.SelectRequest) (*model.Selection, error) {
	r := &remoteSelection{link: n.bulk(at.name), asking: make(chan struct{}, 1)}
	r.mu.pieces = map[int][]byte{}
	b, err := r.link.callFor(ctx, nil, r.closeLate, kindSelect, 0, putSelect(putUvarints(nil, at.life), shards, req))
	if err != nil {
		return nil, err
	}
	d := &decoder{b: b}
	if d.bool() {
		return nil, &model.LimitError{What: "series", Limit: int64(req.MaxSeries), Flag: "query-max-series"}
	}
	r.id = d.uvarint()
	r.ctx, r.cancel = context.WithCancel(ctx)
	context.AfterFunc(r.ctx, r.close) // after Release, or when the reader has left
	sel := &model.Selection{Release: r.cancel}
	if err := r.keys(sel, d, int(d.uvarint())); err != nil {
		sel.Close()
		return nil, err
	}
	return sel, nil
}

// closeLate ends a selection that was opened when nobody waited for it any more.
func (r *remoteSelection) closeLate(b []byte, err error) {
	d := &decoder{b: b}
	if err != nil || d.bool() {
		return
	}
	if r.id = d.uvarint(); r.id != 0 {
		r.close()
	}
}

// close ends the other end's selection.
func (r *remoteSelection) close() {
	r.link.start(kindClose, 0, putUvarints(nil, r.id), func([]byte, error) {})
}

// keys makes the selection's series, whose keys come in pieces.
func (r *remoteSelection) keys(sel *model.Selection, d *decoder, total int) error {
	for !d.bad && len(sel.Series) < total {
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
	return d.end()
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
