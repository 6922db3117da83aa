package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/strandline-db/strandline/shard/model"
)

// metaStore keeps the descriptions of metrics: in memory for reading, in bbolt for
// ever. Without a file (an engine over a file system that is not the machine's) it
// is memory alone.
type metaStore struct {
	db *bbolt.DB // nil: memory alone
	mu struct {
		sync.RWMutex
		known map[string]model.Metadata
	}
}

var bucketMetadata = []byte("metadata")

func openMeta(file string) (_ *metaStore, err error) {
	m := &metaStore{}
	m.mu.known = map[string]model.Metadata{}
	if file == "" {
		return m, nil
	}
	m.db, err = bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", file, err), m.db.Close())
		}
	}()
	if err := m.db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketMetadata)
		return err
	}); err != nil {
		return nil, err
	}
	return m, m.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMetadata).ForEach(func(k, v []byte) error {
			md, err := decodeMeta(v)
			if err != nil {
				return fmt.Errorf("metadata of %q: %w", k, err)
			}
			m.mu.known[string(k)] = md
			return nil
		})
	})
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A value is its CRC32C and then JSON.
func encodeMeta(md *model.Metadata) ([]byte, error) {
	body, err := json.Marshal(md)
	if err != nil {
		return nil, err
	}
	return append(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli)), body...), nil
}

func decodeMeta(b []byte) (md model.Metadata, err error) {
	if len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return md, errors.New("checksum mismatch")
	}
	return md, json.Unmarshal(b[4:], &md)
}

// fresh returns what of mds is new or changed, copied.
func (m *metaStore) fresh(mds []model.Metadata) (fresh []model.Metadata) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, md := range mds {
		if md.Metric != "" && m.mu.known[md.Metric] != md {
			fresh = append(fresh, model.Metadata{Metric: strings.Clone(md.Metric), Type: strings.Clone(md.Type),
				Help: strings.Clone(md.Help), Unit: strings.Clone(md.Unit)})
		}
	}
	return fresh
}

// put stores what fresh returned, durably.
func (m *metaStore) put(fresh []model.Metadata) error {
	if m.db != nil {
		if err := m.db.Update(func(tx *bbolt.Tx) error {
			for i := range fresh {
				v, err := encodeMeta(&fresh[i])
				if err != nil {
					return err
				}
				if err := tx.Bucket(bucketMetadata).Put([]byte(fresh[i].Metric), v); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, md := range fresh {
		m.mu.known[md.Metric] = md
	}
	return nil
}

// get returns one metric's description, or all, sorted by name.
func (m *metaStore) get(metric string) []model.Metadata {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if metric != "" {
		if md, ok := m.mu.known[metric]; ok {
			return []model.Metadata{md}
		}
		return nil
	}
	out := make([]model.Metadata, 0, len(m.mu.known))
	for _, md := range m.mu.known {
		out = append(out, md)
	}
	slices.SortFunc(out, func(a, b model.Metadata) int { return strings.Compare(a.Metric, b.Metric) })
	return out
}

func (m *metaStore) close() error {
	if m.db == nil {
		return nil
	}
	return m.db.Close()
}
