package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	maxSelections = 1024    // of other nodes, open here
	pieceBytes    = 1 << 20 // of keys or samples in one answer, roughly
)

// errSelection: a selection was closed, by its owner or with the connection.
var errSelection = fmt.Errorf("%w: the selection is closed", model.ErrUnavailable)

// selection is one that another node has open here.
type selection struct {
	busy  sync.Mutex // one request at a time
	sel   *model.Selection
	last  int           // the series in cols
	cols  model.Columns // of that
	piece []byte        // scratch
}

func (x *selection) close() {
	x.busy.Lock()
	defer x.busy.Unlock()
	x.sel.Close()
}

// answerSelect opens selections over shards that lie here: of each its number and how many
// series it has, then the keys of the first series, of one selection after another.
func (n *Node) answerSelect(ctx context.Context, from *wire, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	life := d.uvarint()
	shards, reqs := d.selectRequests()
	if err := d.end(); err != nil {
		return nil, err
	}
	if life != 0 && life != n.life {
		return nil, errNoReplica
	}
	sels, err := n.selectHere(ctx, shards, reqs)
	var over *model.LimitError
	if errors.As(err, &over) {
		return putBool(nil, true), nil
	}
	if err != nil {
		return nil, err
	}
	open, ids, err := n.lend(from, sels)
	if err != nil {
		return nil, err
	}
	out := putBool(nil, false)
	for i, x := range open {
		out = putUvarints(out, ids[i], uint64(len(x.sel.Series)))
	}
	for _, x := range open {
		if out = x.keys(out, 0, pieceBytes); len(out) > pieceBytes {
			break
		}
	}
	return out, nil
}

// lend makes selections ones that another node has open here, all or none.
func (n *Node) lend(from *wire, sels []*model.Selection) (open []*selection, ids []uint64, err error) {
	for i, sel := range sels {
		x, id := &selection{sel: sel, last: -1}, rand.Uint64()|1
		if err = n.selections.add(id, from, x); err != nil {
			model.CloseAll(sels[i:])
			break
		}
		open, ids = append(open, x), append(ids, id)
	}
	if err == nil && from.ended() {
		err = errSelection
	}
	if err != nil {
		for _, id := range ids {
			n.selections.end(id, from)
		}
		return nil, nil, err
	}
	return open, ids, nil
}

// keys appends the keys of series from a number on, until dst is longer than some bytes.
func (x *selection) keys(dst []byte, from, end int) []byte {
	for _, s := range x.sel.Series[min(from, len(x.sel.Series)):] {
		if dst = putBytes(dst, model.AppendKey(nil, s.Labels())); len(dst) > end {
			break
		}
	}
	return dst
}

// answerRead gives samples of a selection: those of a series from a place on, and of
// the series behind it as there is room; or, asked for keys, more of them.
func (n *Node) answerRead(from *wire, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	id, keys, i := d.uvarint(), d.bool(), d.count()
	at := pieceOf{d.count(), d.count()}
	if err := d.end(); err != nil {
		return nil, err
	}
	x, ok := n.selections.get(id, from)
	if !ok {
		return nil, errSelection
	}
	x.busy.Lock()
	defer x.busy.Unlock()
	if keys {
		return x.keys(nil, i, pieceBytes), nil
	}
	var out []byte
	for ; i < len(x.sel.Series) && len(out) < pieceBytes; i, at = i+1, (pieceOf{}) {
		if x.last != i {
			x.cols.Reset()
			x.last = -1
			if err := x.sel.Series[i].Read(&x.cols); err != nil {
				return nil, err
			}
			x.last = i
		}
		if at.floats > len(x.cols.T) || at.hists > len(x.cols.Hist) {
			return nil, errMessage
		}
		piece, _, more := putColumns(x.piece[:0], &x.cols, at, pieceBytes-len(out))
		x.piece, out = piece, putBytes(out, piece)
		if more {
			break
		}
	}
	return out, nil
}

// answerNames answers for labels and exemplars of shards that lie here.
func (n *Node) answerNames(ctx context.Context, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	life, what, name := d.uvarint(), d.uvarint(), string(d.bytes())
	shards, req := d.selectRequest()
	if err := d.end(); err != nil {
		return nil, err
	}
	if life != 0 && life != n.life || !n.holdsAll(shards) {
		return nil, errNoReplica
	}
	r := n.replicas.Reader(shards)
	var out []byte
	var err error
	var list []string
	switch what {
	case askNames:
		list, err = r.LabelNames(ctx, req)
		out = putStrings(nil, list)
	case askValues:
		list, err = r.LabelValues(ctx, name, req)
		out = putStrings(nil, list)
	default:
		var exs []model.SeriesExemplars
		exs, err = r.Exemplars(ctx, req)
		out = putExemplars(nil, exs)
	}
	if err == nil && !n.holdsAll(shards) { // it may have been wiped meanwhile
		err = errNoReplica
	}
	if err == nil && len(out) > maxFrame/2 {
		err = fmt.Errorf("%w: the answer has %d bytes", model.ErrLimit, len(out))
	}
	return out, err
}

func (n *Node) holdsAll(shards []int) bool {
	for _, s := range shards {
		if s >= n.replicas.Len() || !n.holdsShard(s) {
			return false
		}
	}
	return true
}

// selectHere selects from replicas here, which must still be ones when it is done.
func (n *Node) selectHere(ctx context.Context, shards []int, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	if !n.holdsAll(shards) {
		return nil, errNoReplica
	}
	sels, err := n.replicas.Reader(shards).SelectAll(ctx, reqs)
	if err == nil && !n.holdsAll(shards) {
		model.CloseAll(sels)
		return nil, errNoReplica
	}
	return sels, err
}
