package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/wal/vfs"
)

const (
	identityName    = "CLUSTER"
	identityVersion = 1
	preface         = "SLCL\x01" // magic and version of the protocol
	prefaceWait     = 5 * time.Second
)

// ErrIdentity: the data folder, or a peer, is not the one that belongs here.
var ErrIdentity = errors.New("cluster identity")

// self is what a node knows of itself and its cluster; it lies in the data folder.
type self struct {
	Version     int    `json:"version"`
	Name        string `json:"name"`
	Incarnation string `json:"incarnation"` // random, of this data folder
	// Cluster is empty until the cluster has formed; Members are those that formed it,
	// name to incarnation.
	Cluster string            `json:"cluster,omitempty"`
	Members map[string]string `json:"members,omitempty"`
	// Addresses are those of the nodes when this one entered.
	Addresses map[string]string `json:"addresses,omitempty"`
	// Grown says that the cluster began with the folder of a single node, its only one of
	// Members, and that the others come into it with empty ones. All nodes know it, so that
	// any lets the next one in.
	Grown bool `json:"grown,omitempty"`
	// Recovering says that Recover has begun and not ended.
	Recovering bool `json:"recovering,omitempty"`
	// Started says that every group has its first configuration. Before that no vote
	// was given and nothing acknowledged.
	Started bool `json:"started,omitempty"`
	// Floors, by group: see reassure.
	Floors map[uint64]place `json:"floors,omitempty"`
	// Lost says up to which entry the shards are empty that were damaged beyond use.
	Lost map[uint64]uint64 `json:"lost,omitempty"`
	// Groups are those of which this folder has a replica, or still has files.
	Groups map[uint64]replicaState `json:"groups,omitempty"`
}

// replicaState is what a node must remember of its replica of a group.
type replicaState string

const (
	learner replicaState = "learner" // it has no vote: it may begin with nothing
	voter   replicaState = "voter"   // it may have a vote: it must never begin with nothing
	leaving replicaState = "leaving" // it is a replica no longer, and its files go
)

// founded tells whether this folder is one of those that formed the cluster.
func (s *self) founded() bool { return s.Members[s.Name] == s.Incarnation }

// setGroup notes what has become of a replica; "" when nothing is left of it.
func (id *identity) setGroup(group uint64, state replicaState) error {
	if id.get().Groups[group] == state {
		return nil
	}
	return id.change(func(s *self) {
		s.Groups = maps.Clone(s.Groups)
		if s.Groups == nil {
			s.Groups = map[uint64]replicaState{}
		}
		if s.Groups[group] = state; state == "" {
			delete(s.Groups, group)
		}
	})
}

// identity is self and its file. Who reads it does not wait for the disk: reads of shards and what
// nodes ask each other come by here.
type identity struct {
	fs       vfs.FS
	dir      string
	changing sync.Mutex // held by the one that writes the file
	now      atomic.Pointer[self]
}

// identityRemedy is what to do about an identity that is damaged: nobody else has it.
const identityRemedy = "empty the whole folder for the node to come in as a new one, which gets its data from the others; where there are none, restore a backup"

// loadIdentity reads the folder's identity or makes a new one.
func loadIdentity(o *Options) (*identity, error) {
	id, s := &identity{fs: o.FS, dir: o.Dir}, &self{}
	id.now.Store(s)
	file := path.Join(o.Dir, identityName)
	b, err := vfs.ReadFile(o.FS, file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := o.MayForm(); err != nil {
			return nil, err
		}
		var random [8]byte
		if _, err := rand.Read(random[:]); err != nil {
			return nil, err
		}
		return id, id.change(func(s *self) {
			*s = self{Version: identityVersion, Name: o.Name, Incarnation: hex.EncodeToString(random[:])}
		})
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(vfs.CheckSeal(b), json.Unmarshal(b, s)); err != nil {
		return nil, fmt.Errorf("%w: %s is damaged (%w): %s", ErrIdentity, file, err, identityRemedy)
	}
	switch {
	case s.Version != identityVersion:
		return nil, fmt.Errorf("%w: %s: version %d is not known to this binary: start the strandline that wrote it; if the file is damaged, %s", ErrIdentity, file, s.Version, identityRemedy)
	case s.Recovering && !o.recovering:
		return nil, fmt.Errorf("%w: %s: `strandline cluster recover` has begun here and not ended; run it again", ErrIdentity, file)
	case s.Name != o.Name && !o.recovering:
		return nil, fmt.Errorf("%w: %s is the folder of node %q, not of %q: give cluster-node that name, or this node its own folder; if %s is damaged, %s",
			ErrIdentity, o.Dir, s.Name, o.Name, file, identityRemedy)
	case s.Cluster == "":
		return id, o.MayForm()
	}
	return id, nil
}

func (id *identity) get() self { return *id.now.Load() }

// change alters the identity durably.
func (id *identity) change(fn func(*self)) error {
	id.changing.Lock()
	defer id.changing.Unlock()
	next := id.get()
	fn(&next)
	b, err := json.MarshalIndent(&next, "", "  ")
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(id.fs, path.Join(id.dir, identityName), vfs.Seal(b)); err != nil {
		return err
	}
	id.now.Store(&next)
	return nil
}

// serverID is how Raft knows a node.
func serverID(name, incarnation string) raft.ServerID {
	return raft.ServerID(name + "@" + incarnation)
}

// clusterID follows from who forms the cluster, so that all come to the same.
func clusterID(members map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(members)) {
		fmt.Fprintf(h, "%s=%s\n", name, members[name])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// greeting is what a dialling node says of itself.
type greeting struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster,omitempty"`
	Address string `json:"address,omitempty"` // where it listens
	To      string `json:"to,omitempty"`      // whom it means to reach; empty: whoever is there
}

// greet opens a connection: preface, length (2 bytes), greeting as JSON.
func (id *identity) greet(conn net.Conn, address, to string) error {
	s := id.get()
	b, err := json.Marshal(greeting{Name: s.Name, Cluster: s.Cluster, Address: address, To: to})
	if err != nil {
		return err
	}
	out := binary.LittleEndian.AppendUint16([]byte(preface), uint16(len(b)))
	_, err = conn.Write(append(out, b...))
	return err
}

// welcome reads what a dialling node says.
func (id *identity) welcome(conn net.Conn) (g greeting, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(prefaceWait)); err != nil {
		return g, err
	}
	head := make([]byte, len(preface)+2)
	if _, err := io.ReadFull(conn, head); err != nil {
		return g, err
	}
	if string(head[:len(preface)]) != preface {
		return g, fmt.Errorf("%w: not a node of this version, or one with cluster-tls-cert while this one has none", ErrIdentity)
	}
	b := make([]byte, binary.LittleEndian.Uint16(head[len(preface):]))
	if _, err := io.ReadFull(conn, b); err != nil {
		return g, err
	}
	if err := json.Unmarshal(b, &g); err != nil {
		return g, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if err := checkName(conn, g.Name); err != nil {
		return g, err
	}
	if err := id.admits(&g); errors.Is(err, ErrIdentity) {
		return g, err
	}
	return g, conn.SetReadDeadline(time.Time{})
}

// errForming: one of the two nodes belongs to no cluster yet, so there is nothing to
// say but hello.
var errForming = fmt.Errorf("%w: the cluster is forming", errDown)

// admits returns nil if a greeted node is of our cluster.
func (id *identity) admits(g *greeting) error {
	s := id.get()
	ours := s.Cluster
	switch {
	case g.To != "" && g.To != s.Name:
		return fmt.Errorf("%w: node %s looks for %s here, which is %s: look at its cluster-peers", ErrIdentity, g.Name, g.To, s.Name)
	case ours == "" || g.Cluster == "":
		return errForming
	case ours != g.Cluster:
		return fmt.Errorf("%w: node %s belongs to cluster %s, this one to %s: look at cluster-peers and cluster-join, or empty the folder of the one that is to change over", ErrIdentity, g.Name, g.Cluster, ours)
	}
	return nil
}

// helloAnswer is the answer to a hello: who a node is, and how its folder places series.
type helloAnswer struct {
	self
	PairLabel string `json:"pairLabel,omitempty"`
	Waits     string `json:"waits,omitempty"` // what the start waits for
	Now       int64  `json:"now,omitempty"`   // by its clock, in milliseconds; 0: from a node of an earlier version
}

// answerHello says who we are.
func (n *Node) answerHello() ([]byte, error) {
	a := helloAnswer{self: n.identity.get(), PairLabel: n.replicas.PairLabel(), Now: n.replicas.Now().UnixMilli()}
	if why := n.waits.Load(); why != nil {
		a.Waits = *why
	}
	return json.Marshal(&a)
}
