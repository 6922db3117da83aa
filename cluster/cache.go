package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// cacheBytes bounds the entries that a node keeps in memory for followers and its own state
// machines: its groups have equal shares. What is older is read from the log.
const cacheBytes = 16 << 20

// cachedStore is a logStore with its newest entries in memory.
type cachedStore struct {
	*logStore
	share func() int // of cacheBytes, for this group
	mu    struct {
		sync.Mutex
		entries map[uint64]*raft.Log
		first   uint64 // of entries; those from first to last are all there
		last    uint64
		bytes   int
	}
}

func newCachedStore(s *logStore, share func() int) *cachedStore {
	c := &cachedStore{logStore: s, share: share}
	c.clearLocked()
	return c
}

func (c *cachedStore) clearLocked() {
	c.mu.entries = map[uint64]*raft.Log{}
	c.mu.first, c.mu.last, c.mu.bytes = 1, 0, 0
}

// GetLog implements raft.LogStore.
func (c *cachedStore) GetLog(index uint64, l *raft.Log) error {
	c.mu.Lock()
	e := c.mu.entries[index]
	c.mu.Unlock()
	if e == nil {
		return c.logStore.GetLog(index, l)
	}
	*l = *e
	return nil
}

// StoreLog implements raft.LogStore.
func (c *cachedStore) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (c *cachedStore) StoreLogs(ls []*raft.Log) error {
	if err := c.logStore.StoreLogs(ls); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range ls {
		if l.Index != c.mu.last+1 {
			c.clearLocked()
			c.mu.first = l.Index
		}
		c.mu.entries[l.Index], c.mu.last = l, l.Index
		c.mu.bytes += len(l.Data)
	}
	for share := c.share(); c.mu.bytes > share && c.mu.first < c.mu.last; {
		c.mu.bytes -= len(c.mu.entries[c.mu.first].Data)
		delete(c.mu.entries, c.mu.first)
		c.mu.first++
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (c *cachedStore) DeleteRange(first, last uint64) error {
	c.mu.Lock()
	c.clearLocked()
	c.mu.Unlock()
	return c.logStore.DeleteRange(first, last)
}
