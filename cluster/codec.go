package cluster

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
)

// errMessage: a message of a peer does not decode.
var errMessage = errors.New("malformed message")

// Messages are uvarints, byte strings behind their length, and flags, in the order
// of the fields below; the kind of the message says which they are.

func putBytes[T ~[]byte | ~string](dst []byte, b T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// room makes room for n more bytes; a large buffer grows twofold, in few steps.
func room(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	return slices.Grow(dst, max(n, cap(dst)))
}

func putBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// decoder reads a message. After the first fault every call returns zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is an uvarint that fits an int on every machine, so that it is not below zero.
func (d *decoder) count() int {
	v := d.uvarint()
	if v > math.MaxInt32 {
		d.b, d.bad = nil, true
		return 0
	}
	return int(v)
}

// bytes aliases the message.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) bool() bool {
	if len(d.b) == 0 {
		d.bad = true
		return false
	}
	v := d.b[0] != 0
	d.b = d.b[1:]
	return v
}

func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return errMessage
	}
	return nil
}

func putHeader(dst []byte, h *raft.RPCHeader) []byte {
	dst = binary.AppendUvarint(dst, uint64(h.ProtocolVersion))
	return putBytes(putBytes(dst, h.ID), h.Addr)
}

func (d *decoder) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(d.uvarint()), ID: d.bytes(), Addr: d.bytes()}
}

func putUvarints(dst []byte, vs ...uint64) []byte {
	for _, v := range vs {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func putAppend(dst []byte, r *raft.AppendEntriesRequest) []byte {
	size := len(r.ID) + len(r.Addr) + 16*binary.MaxVarintLen64
	for _, e := range r.Entries {
		size += len(e.Data) + 4*binary.MaxVarintLen64
	}
	dst = room(dst, size)
	dst = putUvarints(putHeader(dst, &r.RPCHeader), r.Term, r.PrevLogEntry, r.PrevLogTerm, r.LeaderCommitIndex, uint64(len(r.Entries)))
	for _, e := range r.Entries {
		dst = append(putUvarints(dst, e.Index, e.Term), byte(e.Type))
		dst = putBytes(dst, e.Data)
	}
	return dst
}

func (d *decoder) appendRequest() *raft.AppendEntriesRequest {
	r := &raft.AppendEntriesRequest{RPCHeader: d.header(), Term: d.uvarint(), PrevLogEntry: d.uvarint(), PrevLogTerm: d.uvarint(), LeaderCommitIndex: d.uvarint()}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		e := &raft.Log{Index: d.uvarint(), Term: d.uvarint()}
		if len(d.b) == 0 {
			d.bad = true
			break
		}
		e.Type, d.b = raft.LogType(d.b[0]), d.b[1:]
		e.Data = d.bytes()
		r.Entries = append(r.Entries, e)
	}
	return r
}

func putAppendResponse(dst []byte, r *raft.AppendEntriesResponse) []byte {
	dst = putUvarints(putHeader(dst, &r.RPCHeader), r.Term, r.LastLog)
	return putBool(putBool(dst, r.Success), r.NoRetryBackoff)
}

func (d *decoder) appendResponse(r *raft.AppendEntriesResponse) {
	r.RPCHeader, r.Term, r.LastLog = d.header(), d.uvarint(), d.uvarint()
	r.Success, r.NoRetryBackoff = d.bool(), d.bool()
}

func putVote(dst []byte, r *raft.RequestVoteRequest) []byte {
	return putBool(putUvarints(putHeader(dst, &r.RPCHeader), r.Term, r.LastLogIndex, r.LastLogTerm), r.LeadershipTransfer)
}

func (d *decoder) vote() *raft.RequestVoteRequest {
	return &raft.RequestVoteRequest{RPCHeader: d.header(), Term: d.uvarint(), LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint(), LeadershipTransfer: d.bool()}
}

func putPreVote(dst []byte, r *raft.RequestPreVoteRequest) []byte {
	return putUvarints(putHeader(dst, &r.RPCHeader), r.Term, r.LastLogIndex, r.LastLogTerm)
}

func (d *decoder) preVote() *raft.RequestPreVoteRequest {
	return &raft.RequestPreVoteRequest{RPCHeader: d.header(), Term: d.uvarint(), LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint()}
}

// putGranted encodes the answer to a vote and to a pre-vote.
func putGranted(dst []byte, h *raft.RPCHeader, term uint64, granted bool) []byte {
	return putBool(putUvarints(putHeader(dst, h), term), granted)
}

func (d *decoder) granted() (h raft.RPCHeader, term uint64, granted bool) {
	return d.header(), d.uvarint(), d.bool()
}

// putInstall encodes the request with the snapshot's bytes behind it.
func putInstall(dst []byte, r *raft.InstallSnapshotRequest, data []byte) []byte {
	dst = putUvarints(putHeader(dst, &r.RPCHeader), uint64(r.SnapshotVersion), r.Term, r.LastLogIndex, r.LastLogTerm, r.ConfigurationIndex)
	return putBytes(putBytes(dst, r.Configuration), data)
}

func (d *decoder) install() (*raft.InstallSnapshotRequest, []byte) {
	r := &raft.InstallSnapshotRequest{RPCHeader: d.header(), SnapshotVersion: raft.SnapshotVersion(d.uvarint()), Term: d.uvarint(),
		LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint(), ConfigurationIndex: d.uvarint(), Configuration: d.bytes()}
	data := d.bytes()
	r.Size = int64(len(data))
	return r, data
}

func putInstallResponse(dst []byte, r *raft.InstallSnapshotResponse) []byte {
	return putGranted(dst, &r.RPCHeader, r.Term, r.Success)
}

// putOutcome encodes what became of a forwarded operation: with how much was lost, unless it
// was forwarded without a stamp.
func putOutcome(dst []byte, index uint64, r *engine.Result, counted bool) []byte {
	dst = putUvarints(dst, index, uint64(len(r.Refused)))
	for _, x := range r.Refused {
		dst = putBool(putUvarints(dst, uint64(x.Series)), x.Gone)
	}
	dst = putUvarints(dst, uint64(len(r.TooOld)))
	for _, x := range r.TooOld {
		dst = putUvarints(dst, uint64(x.Series))
		if counted {
			dst = putUvarints(dst, uint64(x.Samples), uint64(x.Histograms), uint64(x.Exemplars))
		}
	}
	return dst
}

func (d *decoder) outcome(counted bool) (index uint64, r engine.Result) {
	index = d.uvarint()
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		r.Refused = append(r.Refused, engine.Refusal{Series: d.count(), Gone: d.bool()})
	}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		x := engine.Loss{Series: d.count()}
		if counted {
			x.Samples, x.Histograms, x.Exemplars = d.count(), d.count(), d.count()
		}
		r.TooOld = append(r.TooOld, x)
	}
	return index, r
}
