package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// Between attempts to accept a connection that fail.
const (
	acceptPause        = 5 * time.Millisecond
	longestAcceptPause = time.Second
)

// accept serves the other nodes' connections until the listener closes.
func (n *Node) accept(ctx context.Context, ln net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	pause := acceptPause
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // the system lacks something for the moment, such as one more open file
			if n.refused.Allow() {
				n.opts.Logger.Warn("cluster: a connection could not be accepted; trying again", "err", err)
			}
			time.Sleep(pause)
			pause = min(2*pause, longestAcceptPause)
			continue
		}
		pause = acceptPause
		wg.Go(func() {
			if err := n.serve(ctx, conn); err != nil {
				n.opts.Logger.Debug("cluster: connection ended", "from", conn.RemoteAddr(), "err", err)
			}
		})
	}
}

// serve answers the requests of one connection.
func (n *Node) serve(ctx context.Context, conn net.Conn) error {
	w := newWire(conn, &n.buffers)
	defer w.close()
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	from, err := n.identity.welcome(conn)
	if err != nil {
		level := slog.LevelDebug
		if n.refused.Allow() {
			level = slog.LevelWarn
		}
		n.opts.Logger.Log(ctx, level, "cluster: refused a connection", "from", conn.RemoteAddr(), "err", err)
		return err
	}
	if from.Cluster != "" && from.Address != "" && n.identity.admits(&from) == nil {
		n.book.says(from.Name, from.Address)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- w.write(); w.close() }()
	err = w.read(func(m *message) {
		respond := responder(ctx, w, m)
		if m.kind == kindHello {
			respond(n.answerHello())
		} else if m.kind == kindEnter {
			data := m.data
			go func() { respond(n.answerEnter(ctx, data)) }()
		} else if err := n.identity.admits(&from); err != nil {
			respond(nil, err)
		} else {
			n.handle(ctx, w, m, respond)
		}
	})
	w.close()
	n.selections.end(0, w)
	n.served.end(0, w)
	n.works.end(0, w)
	return errors.Join(err, <-wrote)
}

// responder returns what answers a request that came by a connection. Once ctx, the node's, has
// ended no error is told: it is that end which the request has met, and another node may
// serve it, as whoever asked will see from the connection's end.
func responder(ctx context.Context, w *wire, m *message) func([]byte, error) {
	id, with := m.id, m.with
	return func(data []byte, err error) {
		a := message{kind: kindAnswer, id: id, data: data}
		switch {
		case err != nil && ctx.Err() != nil:
			w.close()
			return
		case err != nil:
			a.kind, a.data = kindError, []byte(err.Error())
		}
		w.answer(&a, with)
	}
}

// orElsewhere makes damage of a replica here, of what answers a read, one that sends the read to another.
func orElsewhere(respond func([]byte, error)) func([]byte, error) {
	return func(data []byte, err error) {
		if model.IsDamage(err) {
			err = fmt.Errorf("%w: %w", model.ErrUnavailable, err)
		}
		respond(data, err)
	}
}

// handle starts the work of a request that came by a connection and returns; respond is called once, when it
// is done. It must not block: it runs on the connection's reader.
func (n *Node) handle(ctx context.Context, from *wire, m *message, respond func([]byte, error)) {
	if m.kind == kindTails {
		go func() { respond(n.answerTails()) }()
		return
	}
	if !n.started.Load() {
		respond(nil, errDown)
		return
	}
	if !n.handleHere(ctx, from, m, respond) {
		n.handleGroup(ctx, from, m, respond)
	}
}

// handleHere handles what is for the node; false if it is not.
func (n *Node) handleHere(ctx context.Context, from *wire, m *message, respond func([]byte, error)) bool {
	switch m.kind {
	case kindTerms:
		respond(n.answerTerms(m.data))
	case kindSelect:
		go func() { orElsewhere(respond)(n.answerSelect(ctx, from, m.data)) }()
	case kindRead:
		go func() { orElsewhere(respond)(n.answerRead(from, m.data)) }()
	case kindNames:
		go func() { orElsewhere(respond)(n.answerNames(ctx, m.data)) }()
	case kindRelay:
		n.relay(m.group, stamp{}, m.data, respond)
	case kindRelayed:
		s, op, err := stamped(m.data)
		if err != nil {
			respond(nil, err)
			return true
		}
		n.relay(m.group, s, op, respond)
	case kindSync:
		go func() { respond(n.answerSync(ctx, m.data)) }()
	case kindClose:
		respond(n.selections.answerEnd(from, m.data))
	case kindFeed:
		go func() { respond(n.answerFeed(ctx, from, m.data)) }()
	case kindFeedPoll:
		go func() { respond(n.answerFeedPoll(ctx, from, m.data)) }()
	case kindFeedNudge:
		respond(nil, n.answerFeedNudge(from, m.data))
	case kindFeedClose:
		respond(n.served.answerEnd(from, m.data))
	case kindWork:
		go func() { orElsewhere(respond)(n.answerWork(ctx, from, m.data)) }()
	case kindWorkPoll:
		go func() { orElsewhere(respond)(n.answerWorkPoll(from, m.data)) }()
	case kindWorkEnd:
		respond(n.works.answerEnd(from, m.data))
	case kindAsk:
		go func() { respond(n.answerAsk(ctx, m.data)) }()
	case kindStatus:
		go func() { respond(n.answerStatus()) }()
	case kindNode:
		go func() { respond(n.answerNode(ctx, m.data)) }()
	case kindHolds:
		respond(putBool(nil, n.identity.get().Groups[m.group] != ""), nil)
	case kindReadIndex:
		go func() { respond(n.answerReadIndexes(ctx, m.data)) }()
	default:
		return false
	}
	return true
}

// handleGroup handles what is for the replica of a group.
func (n *Node) handleGroup(ctx context.Context, from *wire, m *message, respond func([]byte, error)) {
	g := n.group(m.group)
	if g == nil {
		respond(nil, errNoReplica)
		return
	}
	switch m.kind {
	case kindAppend, kindAnnounce, kindHeartbeat, kindVote, kindPreVote, kindInstall, kindTimeoutNow:
		g.trans.receive(m, respond)
	case kindPropose:
		g.submit(proposalFor(stamp{}, m.data, respond))
	case kindWrite:
		s, op, err := stamped(m.data)
		if err != nil {
			respond(nil, err)
			return
		}
		g.submit(proposalFor(s, op, respond))
	case kindCut:
		go func() { respond(n.answerCut(ctx, from, m.group, m.data)) }()
	case kindFetch:
		n.extend(m.group)
		go n.answerFetch(from, m.id, g, m.data, respond)
	case kindOffer:
		go func() { respond(n.answerOffer(ctx, g, m.data)) }()
	case kindRelease:
		d := &decoder{b: m.data}
		id := d.uvarint()
		n.wg.Go(func() { n.takeBack(id) }) // files may go with it
		respond(nil, d.end())
	case kindLeader:
		respond(n.localLead(g.id).answer(m.data), nil)
	case kindConfig:
		go func() { respond(g.answerConfig(ctx)) }()
	case kindChange:
		go func() { respond(nil, g.answerChange(ctx, m.data)) }()
	case kindVerify:
		go func() { respond(g.answerVerify(m.data)) }()
	case kindHashOf:
		respond(g.answerHash(m.data))
	case kindAllow:
		go func() { respond(nil, n.answerAllow(m.group)) }()
	default:
		respond(nil, errMessage)
	}
}
