package live

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/auth"
	"github.com/strandline-db/strandline/server/live/frame"
)

const (
	closeGoingAway = websocket.CloseGoingAway
	closePolicy    = websocket.ClosePolicyViolation
	// protocol is the subprotocol's name: a page that sends a token as another must offer it.
	protocol = "strandline.v1"
	// compressFrom is from how many bytes on a frame is worth compressing.
	compressFrom = 256
	readBuffer   = 256
	// headerProtocol is spelt as net/http does.
	headerProtocol = "Sec-Websocket-Protocol"
	writeBuffer    = 1 << 10
	// The first byte of whole text and close frames.
	textFrame, closeFrame = 0x80 | websocket.TextMessage, 0x80 | websocket.CloseMessage
)

// wsTransport is a WebSocket over a gather, so that it writes into memory.
type wsTransport struct {
	c     *conn
	ws    *websocket.Conn
	plain bool // without compression
}

// webSocket makes the connection a WebSocket; simple: that speaks the older form.
func (s *Server) webSocket(rc *fasthttp.RequestCtx, simple bool) {
	if !websocket.FastHTTPIsWebSocketUpgrade(rc) {
		rc.Response.Header.Set("Upgrade", "websocket")
		fail(rc, fasthttp.StatusUpgradeRequired, "bad_data", errUpgrade)
		return
	}
	if !s.admit(rc) {
		return
	}
	if err := noParameters(rc); err != nil {
		fail(rc, statusOf(err), typeOf(err), err)
		return
	}
	req := requestOf(rc)
	if auth.Authorization(req.Header[headerProtocol]) != "" && !slices.Contains(websocket.Subprotocols(req), protocol) {
		fail(rc, fasthttp.StatusBadRequest, "bad_data", errProtocol)
		return
	}
	c, ok := s.open(rc)
	if !ok {
		return
	}
	defer c.abandon(making) // unless it is hijacked
	c.simple = simple
	plain := !s.opts.Compression || !offersDeflate(req.Header[headerExtensions])
	u := websocket.Upgrader{
		ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, WriteBufferPool: &s.frames,
		Subprotocols: []string{protocol}, EnableCompression: !plain, CheckOrigin: func(*http.Request) bool { return true },
		Error: func(_ http.ResponseWriter, _ *http.Request, code int, reason error) {
			fail(rc, code, "bad_data", reason)
		},
	}
	ws, err := u.Upgrade(upgrading{&c.out, plain}, req, nil)
	if err != nil { // it is answered
		return
	}
	t := &wsTransport{c, ws, plain}
	c.t = t
	ws.SetPingHandler(t.pinged)
	ws.SetPongHandler(func(string) error { t.expect(); return nil })
	s.hijack(rc, c)
}

// requestOf copies what the handshake is about.
func requestOf(rc *fasthttp.RequestCtx) *http.Request {
	r := &http.Request{Method: string(rc.Method()), Host: string(rc.Host()), Header: http.Header{}}
	for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Version", "Sec-Websocket-Key", headerExtensions, headerProtocol} {
		for _, v := range rc.Request.Header.PeekAll(name) {
			r.Header.Add(name, string(v))
		}
	}
	if p := r.Header[headerProtocol]; len(p) > 1 { // only the first line is looked at
		r.Header.Set(headerProtocol, strings.Join(p, ","))
	}
	return r
}

// upgrading is what the handshake sees of the connection: its answer is gathered.
type upgrading struct {
	*gather
	plain bool
}

func (upgrading) Header() http.Header { return http.Header{} }

func (upgrading) WriteHeader(int) {}

// Hijack implements http.Hijacker.
func (u upgrading) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	var conn net.Conn = u.gather
	if u.plain {
		conn = control{u.gather}
	}
	return conn, bufio.NewReadWriter(bufio.NewReaderSize(conn, 16), bufio.NewWriterSize(conn, 16)), nil
}

// control is what the library has of a connection without compression, whose text frames
// don't go through it: it writes its answer to the handshake and whole control frames.
type control struct{ *gather }

// Write implements net.Conn; it never fails.
func (c control) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0] == closeFrame { // it may be the reader's, while the writer has more to send
		c.last(p)
		return len(p), nil
	}
	return c.gather.Write(p)
}

func (t *wsTransport) name() string { return "websocket" }

func (t *wsTransport) frame(_ string, payload []byte, _ bool) {
	if t.plain {
		var head [10]byte
		t.c.out.join(appendHead(head[:0], len(payload)), payload)
		return
	}
	t.ws.EnableWriteCompression(len(payload) >= compressFrom)
	_ = t.ws.WriteMessage(websocket.TextMessage, payload) // into memory; it fails when the goodbye is said
}

// appendHead writes what comes before a text frame of n bytes (RFC 6455, 5.2).
func appendHead(b []byte, n int) []byte {
	b = append(b, textFrame)
	switch {
	case n < 126:
		return append(b, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
}

func (t *wsTransport) ping(pong []byte, ping bool) {
	if pong != nil {
		_ = t.ws.WriteControl(websocket.PongMessage, pong, time.Time{}) // as above
	}
	if ping {
		_ = t.ws.WriteControl(websocket.PingMessage, nil, time.Time{})
	}
}

func (t *wsTransport) close(code int, reason string) {
	_ = t.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Time{})
}

func (t *wsTransport) answers() bool { return true }

// expect lets the client be silent for three pings.
func (t *wsTransport) expect() { t.c.out.expect(12 * t.c.s.opts.Heartbeat) }

// pinged answers only the newest ping, as the standard allows.
func (t *wsTransport) pinged(data string) error {
	t.expect()
	t.c.mu.Lock()
	t.c.mu.pong = []byte(data)
	t.c.mu.Unlock()
	t.c.wake()
	return nil
}

// read carries out the client's messages until it goes.
func (t *wsTransport) read() error {
	done := make(chan struct{})
	for {
		t.c.awaitRoom()
		t.expect()
		kind, r, err := t.ws.NextReader()
		if err != nil {
			return err
		}
		// Not by the library's limit, which is for the bytes on the wire: they may be compressed.
		msg, err := io.ReadAll(io.LimitReader(r, int64(t.c.s.opts.MaxMessage)+1))
		switch {
		case err != nil:
			return err
		case t.c.isClosing():
		case len(msg) > t.c.s.opts.MaxMessage:
			t.c.close(websocket.CloseMessageTooBig, "message larger than live-max-message-bytes")
		case kind != websocket.TextMessage:
			t.c.close(websocket.CloseUnsupportedData, "text frames only")
		case !utf8.Valid(msg):
			t.c.close(websocket.CloseInvalidFramePayloadData, "not UTF-8")
		default:
			t.c.s.working <- struct{}{}
			go func() { // so that the reader's stack stays small
				defer func() { <-t.c.s.working; done <- struct{}{} }()
				t.handle(msg)
			}()
			<-done
		}
	}
}

func (t *wsTransport) handle(msg []byte) {
	c := t.c
	if c.simple {
		c.simpleRequest(c.s.ctx, msg)
		return
	}
	r, err := frame.ParseRequest(msg)
	c.request(c.s.ctx, r, err)
}
