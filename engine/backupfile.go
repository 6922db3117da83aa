package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"time"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// The file BACKUP makes a folder a backup: see FORMAT.md. It is written last.
const (
	backupName    = "BACKUP"
	backupMagic   = "SLBK"
	backupVersion = 1
	backupHead    = 16
	imageName     = "META" // the metadata and records
)

// Backup describes a backup.
type Backup struct {
	Name        string    `json:"name"`
	Made        time.Time `json:"made"` // when it began
	Shards      int       `json:"shards"`
	HashVersion int       `json:"hashVersion"`
	// Indexes are, by shard, the last log entry that is in it: all up to it are, and
	// none behind it. Each shard has a log of its own.
	Indexes []uint64 `json:"indexes"`
	// Revision is that of the records.
	Revision uint64             `json:"revision"`
	Files    []shard.CopiedFile `json:"files"` // all others
}

// Bytes returns the size of all files.
func (b *Backup) Bytes() (n int64) {
	for i := range b.Files {
		n += b.Files[i].Size
	}
	return n
}

func encodeBackup(x *Backup) ([]byte, error) {
	body, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	return sealed(body), nil
}

// sealed puts magic, version, length and checksum before a body.
func sealed(body []byte) []byte {
	b := append([]byte(nil), backupMagic...)
	b = binary.LittleEndian.AppendUint32(b, backupVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	crc := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, body)
	return append(binary.LittleEndian.AppendUint32(b, crc), body...)
}

func decodeBackup(name string, b []byte) (*Backup, error) {
	bad := func(off int64, format string, args ...any) error {
		return &model.CorruptionError{Path: name, Offset: off, Err: fmt.Errorf("%w: "+format, append([]any{ErrBackup}, args...)...)}
	}
	switch {
	case len(b) < backupHead:
		return nil, bad(0, "%d bytes are too short", len(b))
	case string(b[:4]) != backupMagic:
		return nil, bad(0, "not the manifest of a backup")
	case binary.LittleEndian.Uint32(b[4:]) != backupVersion:
		return nil, bad(4, "version %d is not known to this binary", binary.LittleEndian.Uint32(b[4:]))
	case int64(binary.LittleEndian.Uint32(b[8:])) != int64(len(b)-backupHead):
		return nil, bad(8, "length does not fit the file")
	}
	if crc := crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[backupHead:]); crc != binary.LittleEndian.Uint32(b[12:]) {
		return nil, bad(12, "checksum mismatch")
	}
	x := &Backup{}
	if err := json.Unmarshal(b[backupHead:], x); err != nil {
		return nil, bad(backupHead, "%v", err)
	}
	if x.Shards < 1 || x.Shards > 1024 || len(x.Indexes) != x.Shards {
		return nil, bad(backupHead, "%d shards with %d indexes", x.Shards, len(x.Indexes))
	}
	seen := map[string]bool{}
	for _, f := range x.Files {
		if !fs.ValidPath(f.Path) || f.Path == "." || f.Size < 0 || seen[f.Path] {
			return nil, bad(backupHead, "a file %q of %d bytes", f.Path, f.Size)
		}
		seen[f.Path] = true
	}
	if !seen[formatName] || !seen[imageName] {
		return nil, bad(backupHead, "%s or %s is missing", formatName, imageName)
	}
	return x, nil
}

// ReadBackup reads what a backup says of itself, and none of its other files.
func ReadBackup(fsys vfs.FS, dir string) (*Backup, error) {
	name := path.Join(dir, backupName)
	b, err := vfs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no file %s: it is none, or it was not finished", ErrBackup, dir, backupName)
	}
	if err != nil {
		return nil, err
	}
	return decodeBackup(name, b)
}

// readImage reads the metadata and records of a backup.
func readImage(fsys vfs.FS, dir string) (*MetaImage, error) {
	name := path.Join(dir, imageName)
	b, err := vfs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	image := &MetaImage{}
	if err := decodeValue(b, image); err != nil {
		return nil, &model.CorruptionError{Path: name, Err: err}
	}
	return image, nil
}
