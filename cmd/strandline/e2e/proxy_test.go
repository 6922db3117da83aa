package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// linkProxy stands before a node: the others' connections come by it, and it knows from
// their greeting whose they are. TCP keeps the order within a connection; between the
// connections of a pair, and between pairs, the delays change it.
type linkProxy struct {
	to       string // the node's name
	target   string
	listener net.Listener
	mesh     *mesh
}

// mesh is the proxies of a cluster, and what they do to which direction of which link.
type mesh struct {
	proxies []*linkProxy
	wg      sync.WaitGroup
	mu      struct {
		sync.Mutex
		rng     *rand.Rand
		rules   map[[2]string]linkRule // by dialling and dialled node; the dialled one's answers go by the same connection
		conns   map[net.Conn][2]string
		changed chan struct{}
		closed  bool
	}
}

// linkRule is what happens to a link's bytes; zero: nothing.
type linkRule struct {
	delay   time.Duration // at most, of each piece
	stall   [2]bool       // requests, answers: held back
	perTick int           // bytes each 10 ms; 0: any number
}

func newMesh(t *testing.T, seed uint64) *mesh {
	m := &mesh{}
	m.mu.rng = rand.New(rand.NewPCG(seed, 7))
	m.mu.rules, m.mu.conns, m.mu.changed = map[[2]string]linkRule{}, map[net.Conn][2]string{}, make(chan struct{})
	t.Cleanup(m.close)
	return m
}

// before puts a proxy before a node, and returns its address.
func (m *mesh) before(t *testing.T, name, target string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &linkProxy{to: name, target: target, listener: l, mesh: m}
	m.proxies = append(m.proxies, p)
	m.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.wg.Go(func() { p.serve(c) })
		}
	})
	return l.Addr().String()
}

func (m *mesh) close() {
	m.set(func() { m.mu.closed = true })
	for _, p := range m.proxies {
		_ = p.listener.Close() // Accept fails, which is all that is wanted
	}
	m.reset(func([2]string) bool { return true })
	m.wg.Wait()
}

// set changes the rules and wakes who waits for one.
func (m *mesh) set(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
}

// reset ends connections with an RST.
func (m *mesh) reset(of func([2]string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c, link := range m.mu.conns {
		if of(link) {
			_ = c.(*net.TCPConn).SetLinger(0) // the connection may have ended by itself
			_ = c.Close()
		}
	}
}

// greeted reads the preface and the greeting, and returns them with the dialler's name.
func greeted(c net.Conn) ([]byte, string, error) {
	head := make([]byte, 7)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, "", err
	}
	body := make([]byte, binary.LittleEndian.Uint16(head[5:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, "", err
	}
	var g struct{ Name string }
	err := json.Unmarshal(body, &g)
	return append(head, body...), g.Name, err
}

func (p *linkProxy) serve(in net.Conn) {
	defer in.Close()
	m := p.mesh
	hello, from, err := greeted(in)
	if err != nil {
		return
	}
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer out.Close()
	link := [2]string{from, p.to}
	m.set(func() { m.mu.conns[in], m.mu.conns[out] = link, link })
	defer m.set(func() { delete(m.mu.conns, in); delete(m.mu.conns, out) })
	if _, err := out.Write(hello); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { m.pump(out, in, link, 0) })
	both.Go(func() { m.pump(in, out, link, 1) })
	both.Wait()
}

// pump carries one direction until it ends, and then ends the other.
func (m *mesh) pump(dst, src net.Conn, link [2]string, way int) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf[:m.hold(link, way, len(buf))])
		if err != nil {
			return
		}
		m.hold(link, way, 0) // what was on its way when a stall began is held back too
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// hold waits for as long as a link's rule says, and returns how many bytes may follow.
func (m *mesh) hold(link [2]string, way, most int) int {
	for waited := false; ; {
		m.mu.Lock()
		r, changed := m.mu.rules[link], m.mu.changed
		delay := time.Duration(0)
		if r.delay > 0 && most == 0 && !waited {
			delay = time.Duration(m.mu.rng.Int64N(int64(r.delay)))
		}
		stalled := r.stall[way] && !m.mu.closed
		m.mu.Unlock()
		switch {
		case stalled:
			<-changed
		case delay > 0:
			time.Sleep(delay)
			waited = true
		case r.perTick > 0 && most > 0:
			time.Sleep(10 * time.Millisecond)
			return min(most, r.perTick)
		default:
			return most
		}
	}
}

// ruling makes a fault of a rule for all links from or to a node.
func (m *mesh) ruling(name string, rule func(dialled bool) linkRule) fault {
	return fault{name, func(_ *testing.T, _ *trio, i int) func() {
		node := fmt.Sprintf("n%d", i+1)
		set := func(on bool) {
			m.set(func() {
				for other := range 3 {
					if o := fmt.Sprintf("n%d", other+1); other != i {
						for _, link := range [][2]string{{node, o}, {o, node}} {
							if delete(m.mu.rules, link); on {
								m.mu.rules[link] = rule(link[1] == node)
							}
						}
					}
				}
			})
		}
		set(true)
		return func() { set(false) }
	}}
}

func (m *mesh) faults() []fault {
	return []fault{killed, paused,
		m.ruling("delay", func(bool) linkRule { return linkRule{delay: 150 * time.Millisecond} }),
		m.ruling("stall", func(bool) linkRule { return linkRule{stall: [2]bool{true, true}} }),
		m.ruling("mute", func(dialled bool) linkRule { return linkRule{stall: [2]bool{!dialled, dialled}} }),
		m.ruling("deaf", func(dialled bool) linkRule { return linkRule{stall: [2]bool{dialled, !dialled}} }),
		m.ruling("narrow", func(bool) linkRule { return linkRule{perTick: 512} }),
		{"reset", func(_ *testing.T, _ *trio, i int) func() {
			node := fmt.Sprintf("n%d", i+1)
			m.reset(func(link [2]string) bool { return link[0] == node || link[1] == node })
			return func() {}
		}},
	}
}

// behindProxies starts a trio with a proxy before each node.
func behindProxies(t *testing.T, seed uint64) (*trio, *mesh) {
	t.Helper()
	m := newMesh(t, seed)
	own := map[string]string{}
	c := &trio{dir: t.TempDir(), more: func(name string) []string { return []string{"--cluster-listen", own[name]} }}
	var peers []string
	for i := range c.nodes {
		name := fmt.Sprintf("n%d", i+1)
		c.addrs[i], own[name] = freeAddr(t), freeAddr(t)
		peers = append(peers, name+"="+m.before(t, name, own[name]))
	}
	c.peers = strings.Join(peers, ",")
	c.form(t)
	return c, m
}

// TestLinks is fault 11 on the links: bytes come late, not at all, in one direction only,
// slowly, or connections end, beside kills and pauses.
func TestLinks(t *testing.T) {
	c, m := behindProxies(t, 14)
	c.suffer(t, 14, rounds(8, 500), m.faults())
	for i := range c.nodes {
		c.nodes[i].terminate(t)
	}
}
