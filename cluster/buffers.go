package cluster

import "sync"

const (
	largeBuffer = 516 << 10 // for a piece of a block and what is around it
	largeFrame  = 64 << 10  // in bytes; from there on a frame of a bulk link is read into one of buffers
)

// buffers lends large buffers, which would else be cleared and collected one after another
// while blocks are fetched. One that is not given back is the collector's.
type buffers struct{ pool sync.Pool }

// get returns a buffer of n bytes with anything in it.
func (p *buffers) get(n int) []byte {
	if n > largeBuffer {
		return make([]byte, n)
	}
	if b, ok := p.pool.Get().(*[largeBuffer]byte); ok {
		return b[:n]
	}
	return make([]byte, n, largeBuffer)
}

// put takes a buffer back, from its first byte on; others it leaves.
func (p *buffers) put(b []byte) {
	if cap(b) == largeBuffer {
		p.pool.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}
