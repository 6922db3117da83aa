package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/bench/peers"
)

// The floor of a write that goes to all shards of three nodes: three processes that pass on
// frames as large as such a write's, each sync one log, answer, and do nothing else. A node
// hands a third of the write to each of the others; each of the three sends its third to the
// two others, and has it when its own log and that of one other hold it. All that
// a node logs of a write shares an fsync.

// hop is what a frame between them is.
type hop byte

const (
	hopLead   hop = iota // a third of a write, for its leader
	hopEntry             // the third, for a follower's log
	hopStored            // a follower's log has it
	hopDone              // two logs have it
)

const (
	hopHeader = 16   // hop, sender, 2 spare bytes, length, number of the write
	hopLarge  = 2048 // bytes of a frame with a third of a write
	hopLog    = 64 << 20
)

// hopNode is one of the processes.
type hopNode struct {
	me    int
	out   [3]net.Conn
	log   *os.File
	queue chan uint64 // writes of which the log has all thirds to sync
	mu    struct {
		sync.Mutex
		writes map[uint64]*hopWrite
	}
}

// hopWrite is a write as one node sees it.
type hopWrite struct {
	origin   int // the node that was sent it
	entries  int // thirds here
	leads    bool
	synced   bool
	stored   int // followers that have this node's third
	reported bool
	thirds   int           // that are done, at the origin
	done     chan struct{} // closed when all are
}

// hopsFloor measures it, beside a bare fdatasync as other writes are.
func hopsFloor(ctx context.Context, dir string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var addrs []string
	for range 4 {
		addr, err := peers.FreeAddr()
		if err != nil {
			return err
		}
		addrs = append(addrs, addr)
	}
	dir, err = os.MkdirTemp(dir, "hops-")
	if err != nil {
		return err
	}
	for i := range 3 {
		cmd := exec.CommandContext(ctx, self, "hops", strconv.Itoa(i), strings.Join(addrs, ","), dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		defer func() { _ = cmd.Wait() }()         // it was killed
		defer func() { _ = cmd.Process.Kill() }() // or has ended, and said why
	}
	base := "http://" + addrs[3]
	if c, err := dialHop(addrs[3]); err != nil {
		return err
	} else if err := c.Close(); err != nil {
		return err
	}
	l, err := lightly(ctx, base, dir, lightSeries)
	if err != nil {
		return err
	}
	fmt.Printf("the floor, hops and fsyncs alone: %v\n", l)
	return nil
}

// runHops is one of the processes: its number, the four addresses (the last one is node 0's
// for the writes), and the folder for its log.
func runHops(args []string) error {
	if len(args) != 3 {
		return errors.New("hops is what bench cluster starts")
	}
	me, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	addrs := strings.Split(args[1], ",")
	n := &hopNode{me: me, queue: make(chan uint64, lightWrites)}
	n.mu.writes = map[uint64]*hopWrite{}
	if n.log, err = os.Create(filepath.Join(args[2], "log"+args[0])); err != nil {
		return err
	}
	if err := syscall.Fallocate(int(n.log.Fd()), 0, 0, hopLog); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addrs[me])
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	for i, addr := range addrs[:3] {
		if i != me {
			go func() { failed <- n.accept(listener) }()
			if n.out[i], err = dialHop(addr); err != nil {
				return err
			}
		}
	}
	go func() { failed <- n.sync() }()
	if me == 0 {
		go func() { failed <- fasthttp.ListenAndServe(addrs[3], n.write) }()
	}
	if err := <-failed; !errors.Is(err, io.EOF) { // the first to be killed ends the others
		return err
	}
	return nil
}

// dialHop connects to a process that may be about to listen.
func dialHop(addr string) (c net.Conn, err error) {
	for range 1000 {
		if c, err = net.Dial("tcp", addr); err == nil {
			return c, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, err
}

// write serves a write.
func (n *hopNode) write(ctx *fasthttp.RequestCtx) {
	id := ctx.ID()
	n.mu.Lock()
	w := n.of(id)
	n.mu.Unlock()
	for i := range n.out {
		if i != n.me {
			n.send(i, hopLead, id)
		}
	}
	n.lead(id, n.me)
	<-w.done
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// of returns the write of that number, under the lock.
func (n *hopNode) of(id uint64) *hopWrite {
	w := n.mu.writes[id]
	if w == nil {
		w = &hopWrite{done: make(chan struct{})}
		n.mu.writes[id] = w
	}
	return w
}

func (n *hopNode) send(to int, what hop, id uint64) {
	size := hopHeader
	if what == hopLead || what == hopEntry {
		size = hopLarge
	}
	b := make([]byte, size)
	b[0], b[1] = byte(what), byte(n.me)
	binary.LittleEndian.PutUint32(b[4:], uint32(size))
	binary.LittleEndian.PutUint64(b[8:], id)
	if _, err := n.out[to].Write(b); err != nil {
		fmt.Fprintln(os.Stderr, "bench: hops:", err) // the write is never answered
	}
}

func (n *hopNode) lead(id uint64, origin int) {
	for i := range n.out {
		if i != n.me {
			n.send(i, hopEntry, id)
		}
	}
	n.entry(id, func(w *hopWrite) { w.leads, w.origin = true, origin })
}

// entry logs a third of a write; the last of them has the log synced.
func (n *hopNode) entry(id uint64, note func(*hopWrite)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.of(id)
	note(w)
	if w.entries++; w.entries == len(n.out) {
		n.queue <- id
	}
}

// sync is the log's goroutine.
func (n *hopNode) sync() error {
	b := make([]byte, len(n.out)*hopLarge)
	for at := int64(0); ; at = (at + int64(len(b))) % (hopLog - hopLarge*4) {
		id := <-n.queue
		if _, err := n.log.WriteAt(b, at); err != nil {
			return err
		}
		if err := syscall.Fdatasync(int(n.log.Fd())); err != nil {
			return err
		}
		for i := range n.out {
			if i != n.me {
				n.send(i, hopStored, id)
			}
		}
		n.progress(id, func(w *hopWrite) { w.synced = true })
	}
}

// progress notes something about this node's third, and reports it to the origin when done.
func (n *hopNode) progress(id uint64, note func(*hopWrite)) {
	n.mu.Lock()
	w := n.of(id)
	note(w)
	report := w.leads && w.synced && w.stored > 0 && !w.reported
	w.reported = w.reported || report
	origin := w.origin
	n.mu.Unlock()
	switch {
	case report && origin == n.me:
		n.third(id)
	case report:
		n.send(origin, hopDone, id)
	}
}

// third notes, at the origin, that a third of the write is done.
func (n *hopNode) third(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.of(id)
	if w.thirds++; w.thirds == len(n.out) {
		close(w.done)
	}
}

// accept serves the frames of one of the others.
func (n *hopNode) accept(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	for b := make([]byte, hopLarge); ; {
		if _, err := io.ReadFull(c, b[:hopHeader]); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b[hopHeader:binary.LittleEndian.Uint32(b[4:])]); err != nil {
			return err
		}
		from, id := int(b[1]), binary.LittleEndian.Uint64(b[8:])
		switch hop(b[0]) {
		case hopLead:
			n.lead(id, from)
		case hopEntry:
			n.entry(id, func(*hopWrite) {})
		case hopStored:
			n.progress(id, func(w *hopWrite) { w.stored++ })
		case hopDone:
			n.third(id)
		}
	}
}
