package shard

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// The manifest is a shard's commit point: which blocks live, up to which log
// index they cover, and the series table at that index. It is small (a line a
// block), so an edit writes the whole of it beside the old one and renames: one
// file, never torn, nothing to replay. See FORMAT.md.
const (
	manifestName    = "MANIFEST"
	manifestMagic   = "SLMF"
	manifestVersion = 1
	manifestHead    = 16
)

// Tier says where data of a certain age lives.
type Tier uint8

// Tiers are part of the manifest's format.
const (
	Hot Tier = iota
	Warm
	Cold
)

func (t Tier) String() string { return [...]string{"hot", "warm", "cold"}[min(t, Cold)] }

// BlockRef is one live block in the manifest. Times are milliseconds, inclusive.
type BlockRef struct {
	Name      string `json:"name"`
	Tier      Tier   `json:"tier"`
	MinT      int64  `json:"minT"`
	MaxT      int64  `json:"maxT"`
	Samples   int64  `json:"samples"`
	Bytes     int64  `json:"bytes"`
	FromIndex uint64 `json:"fromIndex"`
	ToIndex   uint64 `json:"toIndex"`
	// Chosen is the entry of the last choice that is done in the block, and ChosenT what
	// it reached; 0 if none is.
	Chosen  uint64 `json:"chosen,omitempty"`
	ChosenT int64  `json:"chosenT,omitempty"`
}

// TableRef names the file that holds the series table.
type TableRef struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	CRC  uint32 `json:"crc"`
}

// Manifest is the durable state of a shard.
type Manifest struct {
	Shard     int        `json:"shard"`
	Applied   uint64     `json:"applied"` // log entries up to it are in blocks
	Term      uint64     `json:"term"`    // Raft term of that entry; 1 on a single node
	Cut       int64      `json:"cut"`     // samples before it are gone
	NextNo    uint32     `json:"nextNo"`
	NextBlock uint64     `json:"nextBlock"`
	Table     *TableRef  `json:"table,omitempty"`
	Blocks    []BlockRef `json:"blocks"`
	// Choices are those made up to Applied which a block may still have to hear of, and the last.
	Choices []Choice `json:"choices,omitempty"`
	// Configuration is the Raft configuration at Applied and ConfigurationIndex that of
	// its entry; empty on a single node.
	Configuration      []byte `json:"configuration,omitempty"`
	ConfigurationIndex uint64 `json:"configurationIndex,omitempty"`
	// Installed says that the manifest came from another replica: the log below Applied
	// is not this one's, and is reset to Applied if it does not reach it.
	Installed bool `json:"installed,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeManifest(m *Manifest) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	b := append([]byte(nil), manifestMagic...)
	b = binary.LittleEndian.AppendUint32(b, manifestVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	crc := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, body)
	b = binary.LittleEndian.AppendUint32(b, crc)
	return append(b, body...), nil
}

func decodeManifest(name string, b []byte) (*Manifest, error) {
	bad := func(off int64, format string, args ...any) error {
		return &model.CorruptionError{Path: name, Offset: off, Err: fmt.Errorf("%w: "+format, append([]any{ErrManifest}, args...)...)}
	}
	switch {
	case len(b) < manifestHead:
		return nil, bad(0, "%d bytes are too short", len(b))
	case string(b[:4]) != manifestMagic:
		return nil, bad(0, "not a manifest")
	case binary.LittleEndian.Uint32(b[4:]) != manifestVersion:
		return nil, bad(4, "version %d is not known to this binary", binary.LittleEndian.Uint32(b[4:]))
	case int64(binary.LittleEndian.Uint32(b[8:])) != int64(len(b)-manifestHead):
		return nil, bad(8, "length does not fit the file")
	}
	crc := crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[manifestHead:])
	if crc != binary.LittleEndian.Uint32(b[12:]) {
		return nil, bad(12, "checksum mismatch")
	}
	m := &Manifest{}
	if err := json.Unmarshal(b[manifestHead:], m); err != nil {
		return nil, bad(manifestHead, "%v", err)
	}
	for _, n := range m.names() {
		if n != path.Base(n) || n == "." || n == ".." || n == "/" {
			return nil, bad(manifestHead, "%q is no file's name", n)
		}
	}
	return m, nil
}

// names returns the names of all files. They are joined to paths, and a manifest may come
// from another node.
func (m *Manifest) names() []string {
	var out []string
	if m.Table != nil {
		out = append(out, m.Table.Name)
	}
	for i := range m.Blocks {
		out = append(out, m.Blocks[i].Name)
	}
	return out
}

// ReadManifest reads the manifest in dir; fs.ErrNotExist if there is none.
func ReadManifest(fsys vfs.FS, dir string) (*Manifest, error) {
	name := path.Join(dir, manifestName)
	b, err := vfs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	return decodeManifest(name, b)
}

// writeManifest replaces the manifest in dir durably. After an error it is not
// known which one is there: the shard must stop.
func writeManifest(fsys vfs.FS, dir string, m *Manifest) error {
	b, err := encodeManifest(m)
	if err != nil {
		return err
	}
	return vfs.WriteFile(fsys, path.Join(dir, manifestName), b)
}

// DumpManifest writes the manifest in dir as JSON.
func DumpManifest(fsys vfs.FS, dir string, w io.Writer) error {
	m, err := ReadManifest(fsys, dir)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(m)
}

const tmpSuffix = vfs.TempSuffix

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
