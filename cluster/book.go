package cluster

import (
	"slices"
	"strings"
	"sync"
)

// book knows at which addresses nodes listen. Raft and the links know nodes by name
// alone, so that a node may come back at another address.
type book struct {
	seeds map[string]string // of the options; immutable
	mu    struct {
		sync.Mutex
		said   map[string]string // by a node itself, when it last connected to this one
		listed map[string]string // by the cluster's map
	}
}

func newBook(seeds map[string]string) *book {
	b := &book{seeds: seeds}
	b.mu.said, b.mu.listed = map[string]string{}, map[string]string{}
	return b
}

// of returns where a node may listen, the best guess first. What is not a node's name
// is an address.
func (b *book) of(name string) []string {
	if strings.Contains(name, ":") {
		return []string{name}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, addr := range []string{b.mu.said[name], b.mu.listed[name], b.seeds[name]} {
		if addr != "" && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

func (b *book) says(name, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.said[name] = addr
}

func (b *book) list(name, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.listed[name] = addr
}
