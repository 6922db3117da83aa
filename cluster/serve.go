package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
)

// accept serves the other nodes' connections until the listener closes.
func (n *Node) accept(ctx context.Context, ln net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				n.opts.Logger.Error("cluster: can't accept connections", "err", err)
			}
			return
		}
		wg.Go(func() {
			if err := n.serve(ctx, conn); err != nil {
				n.opts.Logger.Debug("cluster: connection ended", "from", conn.RemoteAddr(), "err", err)
			}
		})
	}
}

// serve answers the requests of one connection.
func (n *Node) serve(ctx context.Context, conn net.Conn) error {
	w := newWire(conn)
	defer w.close()
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	from, err := n.identity.welcome(conn)
	if err != nil {
		n.opts.Logger.Warn("cluster: refused a connection", "from", conn.RemoteAddr(), "err", err)
		return err
	}
	wrote := make(chan error, 1)
	go func() { wrote <- w.write(); w.close() }()
	err = w.read(func(m *message) {
		lazy, id := m.kind == kindHeartbeat, m.id
		respond := func(data []byte, err error) {
			a := message{kind: kindAnswer, id: id, data: data}
			if err != nil {
				a.kind, a.data = kindError, []byte(err.Error())
			}
			_ = w.send(&a, lazy) // a connection that has ended needs no answer
		}
		if m.kind == kindHello {
			respond(n.identity.answerHello())
		} else if err := n.identity.admits(&from); err != nil {
			respond(nil, err)
		} else {
			n.handle(ctx, m, respond)
		}
	})
	w.close()
	return errors.Join(err, <-wrote)
}

// handle starts the work of a request and returns; respond is called once, when it
// is done. It must not block: it runs on the connection's reader.
func (n *Node) handle(ctx context.Context, m *message, respond func([]byte, error)) {
	if m.kind == kindTails {
		go func() { respond(n.answerTails()) }()
		return
	}
	if n.ordered() == nil {
		respond(nil, errDown) // still starting
		return
	}
	switch m.kind {
	case kindTerms:
		respond(n.answerTerms(m.data))
		return
	case kindReadIndex:
		go func() { respond(n.answerReadIndexes(ctx, m.data)) }()
		return
	}
	g := n.group(m.group)
	if g == nil {
		respond(nil, errMessage)
		return
	}
	switch m.kind {
	case kindAppend, kindHeartbeat, kindVote, kindPreVote, kindInstall, kindTimeoutNow:
		g.trans.receive(m, respond)
	case kindPropose:
		g.proposeFor(m.data, respond)
	case kindFetch:
		go func() { respond(g.machine.fetch(m.data)) }()
	case kindOffer:
		go func() { respond(n.answerOffer(m.group)) }()
	case kindRelease:
		d := &decoder{b: m.data}
		n.takeBack(d.uvarint())
		respond(nil, d.end())
	case kindLeader:
		addr, _ := g.raft.LeaderWithID()
		respond([]byte(addr), nil)
	case kindJoin:
		go func() { respond(nil, g.admit(m.data)) }()
	case kindPromote:
		go func() { respond(nil, g.promote(ctx, m.data)) }()
	default:
		respond(nil, errMessage)
	}
}
