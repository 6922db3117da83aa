package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// boltMeta keeps each description, each record and their place as a value of its own.
type boltMeta struct{ db *bbolt.DB }

var (
	bucketMetadata = []byte("metadata")
	bucketRecords  = []byte("records")
	bucketPlace    = []byte("place")
	bucketAge      = []byte("age")
	keyPlace       = []byte("place")
	keyAge         = []byte("age")
)

// loadBolt opens and reads a file. Its pages have no checksums, and bbolt takes them at their
// word: what is wrong with them may show as a panic or as a fault of the mapped file. After
// one while it opens, bbolt leaves the file open.
func loadBolt(fsys vfs.FS, file string) (b *boltMeta, s metaState, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	damaged := func(why error) error { return &model.CorruptionError{Path: file, Err: why} }
	defer func() {
		if p := recover(); p != nil {
			b, err = nil, damaged(fmt.Errorf("%v", p))
		}
	}()
	if err := makeBolt(fsys, file); err != nil {
		return nil, s, err
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	var system *fs.PathError
	var errno syscall.Errno
	if errors.Is(err, berrors.ErrTimeout) || errors.As(err, &system) || errors.As(err, &errno) {
		return nil, s, fmt.Errorf("%s: %w", file, err)
	}
	if err != nil {
		return nil, s, damaged(err)
	}
	b = &boltMeta{db}
	if err = b.renewHeads(fsys); err == nil {
		s, err = b.load()
	}
	if err != nil {
		return nil, s, errors.Join(err, db.Close())
	}
	return b, s, nil
}

// makeBolt makes an empty file if there is none. Under its name it is whole at once: of what bbolt
// makes in place, a power cut may leave a part that it refuses.
func makeBolt(fsys vfs.FS, file string) error {
	if fi, err := fsys.Stat(file); err == nil && fi.Size() > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := file + vfs.TempSuffix
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(tmp, 0o600, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", tmp, err)
	}
	if err := db.Close(); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, file); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(file))
}

// renewHeads makes the state durable that the file was opened with, before anything is built on
// it. By turns the first two pages name the last state; all that it holds was synced before.
// The page itself may be what a process was killed over, or what its sync failed for: then it is
// in the page cache, perhaps clean, and not on the disk, which knows the state before, and the next
// commit writes over pages of that. No sync brings it there unless it is written anew.
func (b *boltMeta) renewHeads(fsys vfs.FS) (err error) {
	f, err := fsys.OpenReadWrite(b.db.Path())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	heads := make([]byte, 2*b.db.Info().PageSize)
	if _, err := f.ReadAt(heads, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(heads, 0); err != nil {
		return err
	}
	return f.Sync()
}

func (b *boltMeta) load() (s metaState, err error) {
	s = newMetaState()
	if err := b.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMetadata, bucketRecords, bucketPlace, bucketAge} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return s, fmt.Errorf("%s: %w", b.db.Path(), err)
	}
	ages := map[string]*age{}
	err = b.db.View(func(tx *bbolt.Tx) error {
		return errors.Join(readBucket(tx, bucketMetadata, s.known), readBucket(tx, bucketRecords, s.records),
			readBucket(tx, bucketPlace, map[string]*place{string(keyPlace): &s.place}), readBucket(tx, bucketAge, ages))
	})
	if err != nil {
		return s, &model.CorruptionError{Path: b.db.Path(), Err: err}
	}
	s.age = ages[string(keyAge)]
	return s, nil
}

// readBucket decodes a bucket's values into a map; where that holds a pointer, into
// what it points to. A page that refers back to another would be read for ever.
func readBucket[V any](tx *bbolt.Tx, name []byte, into map[string]V) error {
	var last []byte
	return tx.Bucket(name).ForEach(func(k, v []byte) error {
		if last != nil && bytes.Compare(k, last) <= 0 {
			return fmt.Errorf("%s: %q follows on %q", name, k, last)
		}
		last = k
		x := into[string(k)]
		if err := decodeValue(v, &x); err != nil {
			return fmt.Errorf("%s of %q: %w", name, k, err)
		}
		into[string(k)] = x
		return nil
	})
}

func (b *boltMeta) save(c *metaChange, _ func() *metaState) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		for i := range c.described {
			if err := putValue(tx, bucketMetadata, []byte(c.described[i].Metric), &c.described[i]); err != nil {
				return err
			}
		}
		for i := range c.records {
			r := &c.records[i]
			if r.Value == nil {
				if err := tx.Bucket(bucketRecords).Delete([]byte(r.Key)); err != nil {
					return err
				}
			} else if err := putValue(tx, bucketRecords, []byte(r.Key), r); err != nil {
				return err
			}
		}
		if c.age != nil {
			if err := putValue(tx, bucketAge, keyAge, c.age); err != nil {
				return err
			}
		}
		if c.place == nil {
			return nil
		}
		return putValue(tx, bucketPlace, keyPlace, c.place)
	})
}

func putValue(tx *bbolt.Tx, bucket, key []byte, v any) error {
	b, err := encodeValue(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, b)
}

func (b *boltMeta) close() error { return b.db.Close() }

// plainMeta keeps all in one file, written anew with each change: for file systems on
// which bbolt can't work.
type plainMeta struct {
	fs   vfs.FS
	name string
}

type plainContent struct {
	Metadata map[string]model.Metadata `json:"metadata"`
	Records  map[string]model.Record   `json:"records"`
	Place    place                     `json:"place"`
	Age      *age                      `json:"age"`
}

func (p *plainMeta) load() (metaState, error) {
	b, err := vfs.ReadFile(p.fs, p.name)
	if errors.Is(err, fs.ErrNotExist) {
		return newMetaState(), nil
	}
	c := plainContent{Metadata: map[string]model.Metadata{}, Records: map[string]model.Record{}}
	if err != nil {
		return metaState{}, fmt.Errorf("%s: %w", p.name, err)
	}
	if err := decodeValue(b, &c); err != nil {
		return metaState{}, &model.CorruptionError{Path: p.name, Err: err}
	}
	return metaState{known: c.Metadata, records: c.Records, place: c.Place, age: c.Age}, nil
}

func (p *plainMeta) save(_ *metaChange, after func() *metaState) error {
	s := after()
	b, err := encodeValue(&plainContent{s.known, s.records, s.place, s.age})
	if err != nil {
		return err
	}
	return vfs.WriteFile(p.fs, p.name, b)
}

func (*plainMeta) close() error { return nil }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeValue makes what is stored of v: its CRC32C and then JSON.
func encodeValue(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli)), body...), nil
}

func decodeValue(b []byte, v any) error {
	if len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return errors.New("checksum mismatch")
	}
	return json.Unmarshal(b[4:], v)
}
