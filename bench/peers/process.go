package peers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrNotReady reports a server that ended or did not become ready in time.
var ErrNotReady = errors.New("peers: server not ready")

// Process is a running server.
type Process struct {
	Spec
	Dir     string // folder of its own; the data is in data/ below it
	Base    string // http://HOST:PORT
	Startup time.Duration
	cmd     *exec.Cmd
	log     *os.File
	exited  chan struct{} // closed once Wait has returned
	waitErr error
	stop    chan struct{}
	sampler sync.WaitGroup
	peak    atomic.Int64
}

// Start runs the server in dir and waits until it is ready, polling every 2 ms.
func Start(ctx context.Context, s Spec, dir string) (_ *Process, err error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	args, err := s.args(dir, addr)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &Process{Spec: s, Dir: dir, Base: "http://" + addr, log: log, exited: make(chan struct{}), stop: make(chan struct{})}
	p.cmd = exec.Command(s.Binary, args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, dir
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		p.waitErr = p.cmd.Wait()
		close(p.exited)
	}()
	p.sampler.Add(1)
	go p.sample()
	if err := p.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	p.Startup = time.Since(begin)
	return p, nil
}

func (p *Process) awaitReady(ctx context.Context) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		res, err := client.Get(p.Base + p.Ready)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s: %w (log: %s)", ErrNotReady, p.Name, ctx.Err(), p.log.Name())
		case <-p.exited:
			return fmt.Errorf("%w: %s ended: %v (log: %s)", ErrNotReady, p.Name, p.waitErr, p.log.Name())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// sample keeps the peak of anonymous memory, at 10 Hz.
func (p *Process) sample() {
	defer p.sampler.Done()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, err := Anon(p.PID()); err == nil {
			p.peak.Store(max(p.peak.Load(), n))
		}
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// PeakAnon returns the highest anonymous memory seen so far, in bytes.
func (p *Process) PeakAnon() int64 { return p.peak.Load() }

// PeakRSS returns the highest resident memory so far, in bytes, as the kernel keeps it.
func (p *Process) PeakRSS() (int64, error) { return PeakRSS(p.PID()) }

// CPU returns the CPU time used so far.
func (p *Process) CPU() (time.Duration, error) { return CPU(p.PID()) }

// Settle waits until the server has used less than 3 % of a core for 5 s, or until limit.
func (p *Process) Settle(ctx context.Context, limit time.Duration) error {
	const window, quiet = 5 * time.Second, 150 * time.Millisecond
	for end := time.Now().Add(limit); time.Now().Before(end); {
		before, err := p.CPU()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(window):
		}
		after, err := p.CPU()
		if err != nil {
			return err
		}
		if after-before < quiet {
			return nil
		}
	}
	return nil
}

// Stop ends the server with SIGTERM, waits at most 2 minutes, and returns all the CPU time it ever used.
func (p *Process) Stop() (time.Duration, error) {
	if err := p.end(syscall.SIGTERM); err != nil {
		return 0, err
	}
	if p.waitErr != nil {
		return 0, fmt.Errorf("%s did not end cleanly: %w (log: %s)", p.Name, p.waitErr, p.log.Name())
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime(), nil
}

// Kill ends the server with SIGKILL.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL) }

func (p *Process) end(sig syscall.Signal) error {
	var err error
	if e := p.cmd.Process.Signal(sig); e != nil && !errors.Is(e, os.ErrProcessDone) {
		err = e
	}
	select {
	case <-p.exited:
	case <-time.After(2 * time.Minute):
		err = errors.Join(err, fmt.Errorf("%s ignores %v", p.Name, sig), p.cmd.Process.Kill())
		<-p.exited
	}
	select {
	case <-p.stop:
	default:
		close(p.stop)
		err = errors.Join(err, p.log.Close())
	}
	p.sampler.Wait()
	return err
}
