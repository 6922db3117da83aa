package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/fasthttp/websocket"

	"github.com/strandline-db/strandline/server/live/frame"
)

// maxFrame bounds a frame of the server, in bytes.
const maxFrame = 64 << 20

// writeTimeout is how long a message to the server may take.
const writeTimeout = 5 * time.Second

// Client is a connection to a server, or to one node after another of a cluster.
type Client struct {
	opts    *Options
	targets []target
	dialer  websocket.Dialer
	ctx     context.Context
	cancel  context.CancelCauseFunc
	done    sync.WaitGroup
	retry   chan struct{} // capacity 1: a subscription is to be tried again
	mu      struct {
		sync.Mutex
		ws    *websocket.Conn // nil: not connected
		subs  map[string]*Subscription
		count int
		err   error // why the client has ended
	}
	sending sync.Mutex // for one writer at a time
}

// New returns a client of the server at one of the URLs (http or https), which it
// connects to in the background. Errors are ErrBadOptions.
func New(urls []string, o *Options) (*Client, error) {
	c := &Client{opts: o.EnsureDefaults(), retry: make(chan struct{}, 1)}
	if err := c.opts.Validate(); err != nil {
		return nil, err
	}
	for _, u := range urls {
		t, err := c.opts.target(u)
		if err != nil {
			return nil, err
		}
		c.targets = append(c.targets, t)
	}
	if len(c.targets) == 0 {
		return nil, fmt.Errorf("%w: no URL", ErrBadOptions)
	}
	c.dialer = websocket.Dialer{TLSClientConfig: c.opts.TLS, HandshakeTimeout: c.opts.Timeout, ReadBufferSize: 4 << 10, WriteBufferSize: 1 << 10}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.mu.subs = map[string]*Subscription{}
	c.done.Go(c.run)
	return c, nil
}

// Close ends all subscriptions with ErrClosed. It joins every goroutine and may be
// called again.
func (c *Client) Close() error {
	c.cancel(ErrClosed)
	c.done.Wait()
	return nil
}

// run connects, again and again.
func (c *Client) run() {
	var err error
	failures := 0
	for i := rand.IntN(len(c.targets)); ; i = (i + 1) % len(c.targets) {
		var served bool
		served, err = c.session(&c.targets[i])
		if served {
			failures = 0
		}
		if c.ctx.Err() != nil || errors.Is(err, ErrRefused) {
			break
		}
		c.opts.Logger.Info("live connection ended", "url", c.targets[i].url, "err", err)
		if c.pause(failures) != nil {
			break
		}
		failures++
	}
	if c.ctx.Err() != nil {
		err = context.Cause(c.ctx)
	}
	c.mu.Lock()
	c.mu.err = err
	subs := c.mu.subs
	c.mu.subs = nil
	c.mu.Unlock()
	for _, s := range subs {
		s.end(err)
	}
}

// pause waits up to twice as long with each failure, by chance shorter, so that the
// clients of a server that went don't come back all at once.
func (c *Client) pause(failures int) error {
	most := c.opts.MaxBackoff
	if failures < 20 {
		most = min(most, c.opts.MinBackoff<<failures)
	}
	t := time.NewTimer(c.opts.MinBackoff/2 + rand.N(most+1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// session is the life of one connection; served: it was one.
func (c *Client) session(t *target) (served bool, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
	defer cancel()
	ws, res, err := c.dialer.DialContext(ctx, t.url, t.header)
	if err != nil {
		if res != nil && res.StatusCode/100 == 4 && res.StatusCode != 408 && res.StatusCode != 429 {
			err = fmt.Errorf("%w: %s", ErrRefused, res.Status)
		}
		return false, err
	}
	ws.SetReadLimit(maxFrame)
	stop := context.AfterFunc(c.ctx, func() { _ = ws.Close() }) // the read then ends
	defer func() {
		stop()
		c.mu.Lock()
		c.mu.ws = nil
		c.mu.Unlock()
		_ = ws.Close() // it may be closed already
	}()
	c.mu.Lock()
	c.mu.ws = ws
	c.mu.Unlock()
	if err := c.sendWanted(); err != nil {
		return true, err
	}
	retries := make(chan struct{})
	c.done.Go(func() { c.again(retries) })
	defer close(retries)
	err = c.read(ws)
	if websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		c.endLongest(ws)
	}
	return true, err
}

// endLongest ends the subscription that the server closed the connection for, since its
// message was too long: it would do so again and again.
func (c *Client) endLongest(ws *websocket.Conn) {
	c.mu.Lock()
	var longest *Subscription
	for _, s := range c.mu.subs {
		if s.told == ws && (longest == nil || len(s.sub.Query) > len(longest.sub.Query)) {
			longest = s
		}
	}
	c.mu.Unlock()
	if longest == nil {
		return
	}
	c.forget(longest, false)
	longest.end(&Error{Type: "limit", Message: fmt.Sprintf(
		"the server takes no message as long as this expression of %d bytes: shorten it, or raise live-max-message-bytes", len(longest.sub.Query))})
}

// again sends what is wanted once more, a while after a subscription failed in passing.
func (c *Client) again(end <-chan struct{}) {
	for failures := 3; ; failures++ {
		select {
		case <-c.retry:
			if c.pause(failures) != nil || c.sendWanted() != nil {
				return // the reader sees why
			}
		case <-end:
			return
		}
	}
}

func (c *Client) read(ws *websocket.Conn) error {
	for {
		if err := ws.SetReadDeadline(time.Now().Add(c.opts.Timeout)); err != nil {
			return err
		}
		_, msg, err := ws.ReadMessage()
		if err != nil {
			return err
		}
		f, err := frame.ParseFrame(msg)
		if err != nil {
			return err
		}
		if f.Type == frame.Drain {
			return fmt.Errorf("drained: %s", f.Reason)
		}
		if f.Type == frame.Heartbeat {
			c.known(f.Known)
		}
		if s := c.find(f.ID); s != nil {
			s.take(f)
		}
	}
}

// known tells the subscriptions up to where they have all.
func (c *Client) known(upTo map[string]frame.Time) {
	for id, t := range upTo {
		if s := c.find(id); s != nil {
			s.known(t)
		}
	}
}

func (c *Client) find(id string) *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.subs[id]
}

// sendWanted tells the server of the subscriptions that it was not told of yet. No
// connection is no error: the next one begins with all of them.
func (c *Client) sendWanted() error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	ws := c.mu.ws
	var todo []*Subscription
	for _, s := range c.mu.subs {
		if s.told != ws {
			s.told = ws
			todo = append(todo, s)
		}
	}
	c.mu.Unlock()
	if ws == nil {
		return nil
	}
	for _, s := range todo {
		if err := sendLocked(ws, &frame.Request{Op: frame.OpSubscribe, Sub: s.want(ws)}); err != nil {
			return err
		}
	}
	return nil
}

// sendLocked sends a message; the caller holds sending.
func sendLocked(ws *websocket.Conn, req *frame.Request) error {
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if err := ws.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return ws.WriteMessage(websocket.TextMessage, b)
}

// forget takes a subscription out, and tells the server if that knows it.
func (c *Client) forget(s *Subscription, tell bool) {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	_, there := c.mu.subs[s.sub.ID]
	delete(c.mu.subs, s.sub.ID)
	ws := c.mu.ws
	known := there && tell && ws != nil && s.told == ws
	c.mu.Unlock()
	if known && sendLocked(ws, &frame.Request{Op: frame.OpUnsubscribe, Sub: frame.Sub{ID: s.sub.ID}}) != nil {
		_ = ws.Close() // the session ends, and the next one does not know it
	}
}

// Query says what to subscribe to.
type Query struct {
	Expr string
	// Step is the distance of the updates. 0: the server's default, 1s.
	Step time.Duration
	// Backfill is how far back the updates begin; 0: with the next step.
	Backfill time.Duration
	// Samples passes on a plain selector's samples as they are stored, in place of steps. After
	// a reconnect, some that were stored before it began may be among them. Of a series and time
	// the last that comes is what is stored; one value does not come twice, unless another lies between.
	Samples bool
}

// Subscribe begins a subscription. It does not wait for the server: what that says of
// the expression comes from Next. The error is ErrBadOptions for what no server takes, or why
// the client has ended.
func (c *Client) Subscribe(q Query) (*Subscription, error) {
	if q.Expr == "" || q.Step < 0 || q.Backfill < 0 {
		return nil, fmt.Errorf("%w: query %q, step %s, backfill %s", ErrBadOptions, q.Expr, q.Step, q.Backfill)
	}
	s := &Subscription{c: c, began: time.Now(), wake: make(chan struct{}, 1)}
	s.sub = frame.Sub{Query: q.Expr, Step: frame.Duration(q.Step), Backfill: frame.Duration(q.Backfill)}
	if q.Samples {
		s.sub.Mode = frame.ModeSamples
	}
	s.mu.revs, s.mu.series = map[int64]uint32{}, map[uint32]series{}
	c.mu.Lock()
	if c.mu.subs == nil {
		err := c.mu.err
		c.mu.Unlock()
		return nil, err
	}
	c.mu.count++
	s.sub.ID = strconv.Itoa(c.mu.count)
	c.mu.subs[s.sub.ID] = s
	c.mu.Unlock()
	if err := c.sendWanted(); err != nil {
		c.opts.Logger.Info("live connection ended", "err", err) // the next one says it again
	}
	return s, nil
}
