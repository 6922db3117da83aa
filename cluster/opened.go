package cluster

import (
	"fmt"
	"sync"

	"github.com/strandline-db/strandline/shard/model"
)

// opened are things of one kind that other nodes have open here, by number. Each belongs
// to a connection, which alone can use it, and ends with it.
type opened[T any] struct {
	what  string // in errors
	most  int
	close func(T)
	mu    struct {
		sync.Mutex
		open map[uint64]ofPeer[T]
	}
}

type ofPeer[T any] struct {
	owner *wire
	thing T
}

func newOpened[T any](what string, most int, end func(T)) *opened[T] {
	o := &opened[T]{what: what, most: most, close: end}
	o.mu.open = map[uint64]ofPeer[T]{}
	return o
}

// add fails with model.ErrOverloaded, or if the number is 0 or in use.
func (o *opened[T]) add(id uint64, owner *wire, x T) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.mu.open) >= o.most {
		return fmt.Errorf("%w: %d %s are open for other nodes", model.ErrOverloaded, o.most, o.what)
	}
	if _, used := o.mu.open[id]; id == 0 || used {
		return errMessage
	}
	o.mu.open[id] = ofPeer[T]{owner, x}
	return nil
}

func (o *opened[T]) get(id uint64, owner *wire) (x T, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.mu.open[id]; p.owner == owner {
		return p.thing, owner != nil
	}
	return x, false
}

// end closes one of a connection's, or with id 0 all.
func (o *opened[T]) end(id uint64, owner *wire) {
	o.mu.Lock()
	var ended []T
	for k, p := range o.mu.open {
		if p.owner == owner && (id == 0 || id == k) {
			ended = append(ended, p.thing)
			delete(o.mu.open, k)
		}
	}
	o.mu.Unlock()
	for _, x := range ended {
		o.close(x)
	}
}

// answerEnd begins to end what a message names.
func (o *opened[T]) answerEnd(owner *wire, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	if id := d.uvarint(); id != 0 {
		go o.end(id, owner)
	}
	return nil, d.end()
}

func (o *opened[T]) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.mu.open)
}
