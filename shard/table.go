package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"github.com/klauspost/compress/zstd"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// The series table maps numbers to keys at the manifest's index, since log
// entries above it name series by number. zstd over: uvarint n, then n times
// uvarint number minus the previous one, uvarint key length, key. Its checksum
// lies in the manifest.
const tableMax = 1 << 30

type tableEntry struct {
	no  uint32
	key string
}

func writeTable(fsys vfs.FS, dir, name string, entries []tableEntry) (*TableRef, error) {
	raw := binary.AppendUvarint(nil, uint64(len(entries)))
	var prev uint32
	for _, e := range entries {
		raw = binary.AppendUvarint(raw, uint64(e.no-prev))
		raw = binary.AppendUvarint(raw, uint64(len(e.key)))
		raw = append(raw, e.key...)
		prev = e.no
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, err
	}
	b := enc.EncodeAll(raw, nil)
	if err := enc.Close(); err != nil {
		return nil, err
	}
	if err := vfs.WriteFile(fsys, path.Join(dir, name), b); err != nil {
		return nil, err
	}
	return &TableRef{Name: name, Size: int64(len(b)), CRC: crc32.Checksum(b, castagnoli)}, nil
}

func readTable(fsys vfs.FS, dir string, ref *TableRef, fn func(no uint32, key string)) error {
	if ref == nil {
		return nil
	}
	name := path.Join(dir, ref.Name)
	b, err := vfs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return &model.CorruptionError{Path: name, Err: err}
	}
	if err != nil {
		return fmt.Errorf("series table: %w", err)
	}
	if err := ref.check(b); err != nil {
		return &model.CorruptionError{Path: name, Err: err}
	}
	if err := decodeTable(b, fn); err != nil {
		return &model.CorruptionError{Path: name, Err: err}
	}
	return nil
}

func (ref *TableRef) check(b []byte) error {
	if int64(len(b)) != ref.Size || crc32.Checksum(b, castagnoli) != ref.CRC {
		return fmt.Errorf("%w: series table does not fit its checksum", ErrManifest)
	}
	return nil
}

func decodeTable(b []byte, fn func(no uint32, key string)) error {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(tableMax))
	if err != nil {
		return err
	}
	defer dec.Close()
	raw, err := dec.DecodeAll(b, nil)
	if err != nil {
		return err
	}
	r := reader{b: raw}
	var no uint32
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		no += uint32(r.uvarint())
		if key := r.bytes(); r.err == nil {
			fn(no, string(key))
		}
	}
	return r.err
}
