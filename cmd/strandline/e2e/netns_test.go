package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// netns is three hosts and a client, each in a network namespace of its own, on one
// bridge in another. The addresses exist in these namespaces alone.
type netns struct{ prefix string }

func (n *netns) host(i int) string { return fmt.Sprintf("%s-%d", n.prefix, i) }

func hostAddr(i int) string { return fmt.Sprintf("10.77.0.%d", i) }

const clientHost = 4

// ip runs iproute2.
func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// newNetns makes the namespaces, and takes them away when the test ends. Where that is
// not permitted the test is left out, or fails if CI is true.
func newNetns(t *testing.T) *netns {
	t.Helper()
	n := &netns{prefix: fmt.Sprintf("sl%d", os.Getpid())}
	need(t, "run as root, and apt-get install iproute2", func() (string, error) {
		if _, err := exec.LookPath("ip"); err != nil {
			return "", err
		}
		return "", ip("netns add " + n.host(0))
	})
	t.Cleanup(func() {
		for i := range clientHost + 1 {
			if err := ip("netns del " + n.host(i)); err != nil && !t.Failed() {
				t.Error(err)
			}
		}
	})
	sw := "-n " + n.host(0) + " link "
	steps := []string{sw + "add sw0 type bridge", sw + "set sw0 up"}
	for i := 1; i <= clientHost; i++ {
		h := "-n " + n.host(i) + " "
		steps = append(steps, "netns add "+n.host(i),
			fmt.Sprintf("%sadd port%d type veth peer name eth0 netns %s", sw, i, n.host(i)),
			fmt.Sprintf("%sset port%d master sw0 up", sw, i),
			h+"link set lo up", h+"link set eth0 up", fmt.Sprintf("%saddr add %s/24 dev eth0", h, hostAddr(i)))
	}
	for _, s := range steps {
		if err := ip(s); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// nowhere is a MAC that nobody has: what is sent there is gone, and nobody is told.
const nowhere = "02:00:00:00:00:77"

// cut drops what host from sends to host to, in silence; the other direction is left.
func (n *netns) cut(t *testing.T, from, to int) {
	t.Helper()
	if err := ip(fmt.Sprintf("-n %s neigh replace %s lladdr %s dev eth0 nud permanent", n.host(from), hostAddr(to), nowhere)); err != nil {
		t.Error(err)
	}
}

func (n *netns) mend(t *testing.T, from, to int) {
	t.Helper()
	if err := ip(fmt.Sprintf("-n %s neigh del %s dev eth0", n.host(from), hostAddr(to))); err != nil {
		t.Error(err)
	}
}

// cutting makes a fault of the directions that it cuts for node i of three.
func (n *netns) cutting(name string, dirs func(i int) [][2]int) fault {
	return fault{name, func(t *testing.T, _ *trio, i int) func() {
		for _, d := range dirs(i + 1) {
			n.cut(t, d[0], d[1])
		}
		return func() {
			for _, d := range dirs(i + 1) {
				n.mend(t, d[0], d[1])
			}
		}
	}}
}

func (n *netns) faults() []fault {
	next := func(i int) (a, b int) { return i%3 + 1, (i+1)%3 + 1 }
	return []fault{killed, paused,
		n.cutting("partition", func(i int) [][2]int { a, b := next(i); return [][2]int{{i, a}, {a, i}, {i, b}, {b, i}} }),
		n.cutting("mute", func(i int) [][2]int { a, b := next(i); return [][2]int{{i, a}, {i, b}} }),
		n.cutting("deaf", func(i int) [][2]int { a, b := next(i); return [][2]int{{a, i}, {b, i}} }),
		n.cutting("one way", func(i int) [][2]int { a, _ := next(i); return [][2]int{{i, a}} }),
		{"unplugged", func(t *testing.T, _ *trio, i int) func() {
			port := fmt.Sprintf("-n %s link set port%d ", n.host(0), i+1)
			if err := ip(port + "down"); err != nil {
				t.Error(err)
			}
			return func() {
				if err := ip(port + "up"); err != nil {
					t.Error(err)
				}
			}
		}},
	}
}

// dialIn returns a dialler whose sockets are in a namespace.
func dialIn(name string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		done := make(chan struct{})
		go func() { // the thread ends with the goroutine, since it stays locked
			defer close(done)
			runtime.LockOSThread()
			fd, oerr := unix.Open(filepath.Join("/run/netns", name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err = oerr; err != nil {
				return
			}
			defer unix.Close(fd)
			if err = unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return
			}
			var d net.Dialer
			conn, err = d.DialContext(ctx, network, addr)
		}()
		<-done
		return conn, err
	}
}

// inNetns starts a trio on the hosts, and lets this process's HTTP clients reach it.
func inNetns(t *testing.T, n *netns) *trio {
	t.Helper()
	transport := http.DefaultTransport.(*http.Transport)
	before := transport.DialContext
	dial := dialIn(n.host(clientHost))
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, "10.77.0.") {
			return dial(ctx, network, addr)
		}
		return before(ctx, network, addr)
	}
	t.Cleanup(sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		transport.DialContext = before
	}))
	c := &trio{dir: t.TempDir(), more: func(string) []string { return []string{"--insecure"} }}
	var peers []string
	for i := range c.nodes {
		c.addrs[i] = hostAddr(i+1) + ":9595"
		c.command[i] = []string{"ip", "netns", "exec", n.host(i + 1)}
		peers = append(peers, fmt.Sprintf("n%d=%s:9701", i+1, hostAddr(i+1)))
	}
	c.peers = strings.Join(peers, ",")
	c.form(t)
	return c
}

// TestPartitions is fault 11 on three hosts: nodes are killed, paused and cut off, in
// silence, in both directions or one.
func TestPartitions(t *testing.T) {
	n := newNetns(t)
	c := inNetns(t, n)
	c.suffer(t, 12, rounds(10, 500), n.faults())
	for i := range c.nodes {
		c.nodes[i].terminate(t)
	}
}
