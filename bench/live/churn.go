package live

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"
)

// Churn connects n times, a few at a time, and leaves again, each in one of four ways: at once, with the first
// frame, by a goodbye that the server answers, or by a reset.
func Churn(ctx context.Context, host string, n int, subscribe func(i int) string) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for i := range n {
		g.Go(func() error {
			s, err := Dial(gctx, host, subscribe(i))
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			if err := s.leave(i % 4); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *Socket) leave(way int) (err error) {
	defer func() { err = errors.Join(err, s.c.Close()) }()
	switch way {
	case 1:
		for {
			if _, _, ok := s.next(); ok {
				return nil
			}
			if err := s.more(); err != nil {
				return err
			}
		}
	case 2:
		if err := s.send(8, []byte{3, 232}); err != nil {
			return err
		}
		for {
			if opcode, _, ok := s.next(); ok {
				if opcode == 8 {
					return nil
				}
				continue
			}
			if err := s.more(); err != nil {
				return fmt.Errorf("%w: no goodbye: %w", ErrAnswer, err)
			}
		}
	case 3:
		if tcp, ok := s.c.(*net.TCPConn); ok {
			return tcp.SetLinger(0)
		}
	}
	return nil
}
