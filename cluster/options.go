package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strandline-db/strandline/wal/vfs"
)

// Options configure a node. Name, Listen, and Peers or Join are required.
type Options struct {
	Name      string // of this node
	Listen    string // host:port for the other nodes
	Advertise string // host:port at which they reach it. Default: that of Peers, or Listen
	// Peers are the nodes that form the cluster, this one included: name to host:port.
	// Once it has formed, they are merely where the others may be.
	Peers map[string]string
	Join  string // host:port of any node of a cluster that this one is to enter, instead of Peers
	HTTP  string // where clients reach this node; for status alone
	Dir   string // of the engine; the node's identity lies in it

	FS      vfs.FS  // the machine's file system
	Network Network // TCP
	Logger  *slog.Logger

	// Heartbeat is after what silence of the leader a follower stands for election.
	// Default: 500 ms.
	Heartbeat time.Duration
	// CommitTimeout is how long a write may look for a leader and a majority before it
	// fails with model.ErrUnavailable. Default: 5 s.
	CommitTimeout time.Duration
	// TrailingLogs is how many entries of a group's log stay behind a flush, for
	// replicas that were away. Default: 1024.
	TrailingLogs uint64
	// FetchRate bounds the bytes a second of blocks fetched from other nodes. 0: unlimited.
	FetchRate int64
	// OnWait is told what Start waits for and what to do if that does not come, and "" when
	// it waits no longer. It must not block. Nil: nobody asks.
	OnWait func(why string)
	// Registerer takes the node's metrics. Nil: none.
	Registerer prometheus.Registerer

	recovering bool // see Recover

	tap     tap                // nil outside tests
	onPhase func(*Node, *Move) // tests hear of a move before its next phase is written down
}

// Network makes connections. Safe for concurrent use.
type Network interface {
	Listen(addr string) (net.Listener, error)
	// Dial connects to a node at an address. The name is empty if it is not known yet.
	Dial(ctx context.Context, name, addr string) (net.Conn, error)
}

// TCP is the machine's network.
type TCP struct{}

// Listen implements Network.
func (TCP) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// Dial implements Network. What the peer's machine does not have when the connection is
// closed never comes to it. The system would send it for minutes otherwise: a write, sent
// another way meanwhile, could come once more behind a newer one.
func (TCP) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.Network == nil {
		o.Network = TCP{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Advertise == "" {
		if o.Advertise = o.Peers[o.Name]; o.Advertise == "" {
			o.Advertise = o.Listen
		}
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 500 * time.Millisecond
	}
	if o.CommitTimeout == 0 {
		o.CommitTimeout = 5 * time.Second
	}
	if o.TrailingLogs == 0 {
		o.TrailingLogs = 1024
	}
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Name == "" || strings.ContainsAny(o.Name, "@=,:/ ") {
		errs = append(errs, fmt.Errorf("cluster-node: %q is no name for a node", o.Name))
	}
	switch {
	case o.Join != "" && len(o.Peers) > 0:
		errs = append(errs, errors.New("cluster-join: it goes without cluster-peers: a node enters a cluster that runs, or forms one"))
	case o.Join == "" && o.Peers[o.Name] == "":
		errs = append(errs, fmt.Errorf("cluster-peers: node %q is not among them", o.Name))
	}
	if _, _, err := net.SplitHostPort(o.Join); err != nil && o.Join != "" {
		errs = append(errs, fmt.Errorf("cluster-join: %w", err))
	} else if o.Join != "" && (o.Join == o.Listen || o.Join == o.Advertise) {
		errs = append(errs, fmt.Errorf("cluster-join: %s is this node's own: give that of one which is in the cluster", o.Join))
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil && (o.Listen != "" || o.Join != "") {
		errs = append(errs, fmt.Errorf("cluster-listen: %w", err))
	}
	if host, _, err := net.SplitHostPort(o.Advertise); err != nil {
		errs = append(errs, fmt.Errorf("cluster-advertise: %w", err))
	} else if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		errs = append(errs, fmt.Errorf("cluster-advertise: %s is no address that another node could dial", o.Advertise))
	}
	at := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(o.Peers)) {
		addr := o.Peers[name]
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("cluster-peers: %s: %w", name, err))
		}
		if other, twice := at[addr]; twice {
			errs = append(errs, fmt.Errorf("cluster-peers: %s and %s have the same address %s", other, name, addr))
		}
		at[addr] = name
	}
	if o.Heartbeat < 50*time.Millisecond || o.CommitTimeout <= 0 {
		errs = append(errs, errors.New("cluster-heartbeat must be at least 50 ms, cluster-commit-timeout positive"))
	}
	return errors.Join(errs...)
}

// MayForm fails if no cluster should be formed of the peers. A node of one that has formed does not
// mind: it may have become as small.
func (o *Options) MayForm() error {
	if len(o.Peers) == 2 {
		return errors.New("cluster-peers: two nodes survive no failure; begin with three, or with one and add others; a cluster that runs is entered with cluster-join")
	}
	return nil
}

// ParsePeers reads a list like "n1=host:port,n2=host:port".
func ParsePeers(s string) (map[string]string, error) {
	peers := map[string]string{}
	for _, part := range strings.Split(s, ",") {
		name, addr, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || name == "" || addr == "" {
			return nil, fmt.Errorf("cluster-peers: %q is not name=host:port", part)
		}
		if _, twice := peers[name]; twice {
			return nil, fmt.Errorf("cluster-peers: %s is there twice", name)
		}
		peers[name] = addr
	}
	return peers, nil
}
