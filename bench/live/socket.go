package live

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// firstBuffer is what a connection reads into; it grows with the frames.
const firstBuffer = 512

// Frame is what a server pushed. Payload is valid until the callback returns.
type Frame struct {
	At      time.Time // when it was read from the socket
	Type    []byte    // "data", "series", ...
	ID      []byte    // of the subscription, one without escapes; nil: none
	T       int64     // of data, in milliseconds
	Rev     int
	Values  []byte // of data: the JSON of the pairs of series number and value
	Payload []byte
}

// Socket is a WebSocket client that knows no more than it needs: text frames of a
// server that does not fragment. It belongs to one goroutine.
type Socket struct {
	c        net.Conn
	buf      []byte
	from, to int // what is read and not yet taken
}

// Dial connects and subscribes with the JSON that is given.
func Dial(ctx context.Context, host, subscribe string) (*Socket, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	s := &Socket{c: c, buf: make([]byte, firstBuffer)}
	if err := s.shake(host, subscribe); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

func (s *Socket) shake(host, subscribe string) error {
	if err := s.c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	_, err := io.WriteString(s.c, "GET /api/v1/live HTTP/1.1\r\nHost: "+host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		return err
	}
	for {
		if i := bytes.Index(s.buf[s.from:s.to], []byte("\r\n\r\n")); i >= 0 {
			if !bytes.HasPrefix(s.buf[s.from:s.to], []byte("HTTP/1.1 101 ")) {
				return fmt.Errorf("%w: %s", ErrAnswer, s.buf[s.from:s.to])
			}
			s.from += i + 4
			break
		}
		if err := s.more(); err != nil {
			return err
		}
	}
	if err := s.send(1, []byte(subscribe)); err != nil {
		return err
	}
	return s.c.SetDeadline(time.Time{})
}

// send writes one masked frame of less than 64 KiB; the mask is 0, which is one as well.
func (s *Socket) send(opcode byte, payload []byte) error {
	h := []byte{0x80 | opcode}
	if len(payload) < 126 {
		h = append(h, 0x80|byte(len(payload)))
	} else {
		h = binary.BigEndian.AppendUint16(append(h, 0x80|126), uint16(len(payload)))
	}
	h = append(h, 0, 0, 0, 0)
	_, err := s.c.Write(append(h, payload...))
	return err
}

// more reads once, after making room.
func (s *Socket) more() error {
	if s.from > 0 {
		s.to = copy(s.buf, s.buf[s.from:s.to])
		s.from = 0
	}
	if s.to == len(s.buf) {
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.c.Read(s.buf[s.to:])
	s.to += n
	return err
}

// Run hands on each frame until the connection ends or on fails. It ends with nil when
// ctx does.
func (s *Socket) Run(ctx context.Context, on func(*Frame) error) error {
	stop := context.AfterFunc(ctx, func() { s.c.Close() })
	defer stop()
	defer s.c.Close()
	var at time.Time
	for {
		opcode, payload, ok := s.next()
		if !ok {
			if err := s.more(); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			at = time.Now()
			continue
		}
		var err error
		switch opcode {
		case 1:
			f := Frame{At: at, Payload: payload}
			if err = f.parse(); err == nil {
				err = on(&f)
			}
		case 8:
			err = fmt.Errorf("%w: closed by the server: %q", ErrAnswer, payload)
		case 9:
			err = s.send(10, payload)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// next takes a whole frame from what is read.
func (s *Socket) next() (opcode byte, payload []byte, ok bool) {
	b := s.buf[s.from:s.to]
	if len(b) < 2 {
		return 0, nil, false
	}
	n, head := uint64(b[1]&0x7f), 2
	switch {
	case n == 126 && len(b) >= 4:
		n, head = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case n == 127 && len(b) >= 10:
		n, head = binary.BigEndian.Uint64(b[2:]), 10
	case n >= 126:
		return 0, nil, false
	}
	if uint64(len(b)-head) < n {
		return 0, nil, false
	}
	end := head + int(n)
	s.from += end
	return b[0] & 0x0f, b[head:end], true
}

// parse finds the parts of a frame without decoding the JSON.
func (f *Frame) parse() error {
	rest, ok := bytes.CutPrefix(f.Payload, []byte(`{"type":"`))
	if !ok {
		return fmt.Errorf("%w: %s", ErrAnswer, f.Payload)
	}
	f.Type, rest, _ = bytes.Cut(rest, []byte(`"`))
	if id, has := bytes.CutPrefix(rest, []byte(`,"id":"`)); has {
		f.ID, _, _ = bytes.Cut(id, []byte(`"`))
	}
	if string(f.Type) != "data" {
		return nil
	}
	if _, rest, ok = bytes.Cut(rest, []byte(`,"t":`)); !ok {
		return fmt.Errorf("%w: no time: %s", ErrAnswer, f.Payload)
	}
	end := bytes.IndexByte(rest, ',')
	if end < 0 {
		return fmt.Errorf("%w: %s", ErrAnswer, f.Payload)
	}
	var err error
	if f.T, err = parseMillis(rest[:end]); err != nil {
		return err
	}
	rest = rest[end:]
	if r, has := bytes.CutPrefix(rest, []byte(`,"rev":`)); has {
		end := bytes.IndexByte(r, ',')
		if f.Rev, err = strconv.Atoi(string(r[:max(end, 0)])); err != nil {
			return err
		}
		rest = r[end:]
	}
	if f.Values, ok = bytes.CutPrefix(rest, []byte(`,"v":`)); !ok || len(f.Values) == 0 {
		return fmt.Errorf("%w: no values: %s", ErrAnswer, f.Payload)
	}
	f.Values = f.Values[:len(f.Values)-1]
	return nil
}

// parseMillis reads seconds with up to three decimals.
func parseMillis(b []byte) (int64, error) {
	whole, frac, _ := bytes.Cut(b, []byte("."))
	s, err := strconv.ParseInt(string(whole), 10, 64)
	if err != nil || len(frac) > 3 {
		return 0, fmt.Errorf("%w: time %s", ErrAnswer, b)
	}
	ms := int64(0)
	for i := range 3 {
		ms *= 10
		if i < len(frac) {
			ms += int64(frac[i] - '0')
		}
	}
	return s*1000 + ms, nil
}

// Crowd is many subscribers.
type Crowd struct {
	stop context.CancelFunc
	g    *errgroup.Group
	mu   struct {
		sync.Mutex
		err error // the first failure
	}
}

// dialers is how many connections are made at a time.
const dialers = 32

// Gather connects n subscribers; the ith sends subscribe(i), and on(i, frame) gets its frames, called by
// one goroutine a subscriber. Each reads as soon as it is connected: what the first miss until the last
// one is there would be the server's to keep.
func Gather(ctx context.Context, host string, n int, subscribe func(i int) string, on func(i int, f *Frame) error) (*Crowd, error) {
	c := &Crowd{}
	ctx, c.stop = context.WithCancel(ctx)
	c.g, ctx = errgroup.WithContext(ctx)
	dial, dctx := errgroup.WithContext(ctx)
	dial.SetLimit(dialers)
	for i := range n {
		dial.Go(func() error {
			s, err := Dial(dctx, host, subscribe(i))
			if err != nil {
				return err
			}
			c.g.Go(func() error {
				err := s.Run(ctx, func(f *Frame) error { return on(i, f) })
				if err != nil {
					c.fail(fmt.Errorf("subscriber %d: %w", i, err))
				}
				return err
			})
			return nil
		})
	}
	if err := dial.Wait(); err != nil {
		if first := c.Leave(); first != nil {
			return nil, first // it may be why
		}
		return nil, err
	}
	return c, nil
}

func (c *Crowd) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err == nil {
		c.mu.err = err
	}
}

// Leave disconnects all and returns the first failure there was.
func (c *Crowd) Leave() error {
	c.stop()
	c.g.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

// Series decodes a frame of type series: label sets by number.
func (f *Frame) Series() (map[int]map[string]string, error) {
	var a struct{ Series [][2]json.RawMessage }
	if err := json.Unmarshal(f.Payload, &a); err != nil {
		return nil, err
	}
	out := make(map[int]map[string]string, len(a.Series))
	for _, d := range a.Series {
		n, err := strconv.Atoi(string(d[0]))
		if err != nil {
			return nil, err
		}
		var ls map[string]string
		if err := json.Unmarshal(d[1], &ls); err != nil {
			return nil, err
		}
		out[n] = ls
	}
	return out, nil
}
