package shard

// watchers says which watches a series has. Their chains lie in one piece of memory and
// are found by the series' number, so that a sample of a watched series touches little
// of what is not in the processor's caches, and one of no watched series nothing.
type watchers struct {
	first []uint32  // by number of series: the first link of its chain; 0: it has none
	links []watcher // but for the first, which ends every chain
	free  uint32    // the chain of links that are not in use
}

// watcher is one watch of a series.
type watcher struct {
	w    *Watch
	id   uint32 // the sink's number of the series, plus one; 0: not told yet
	next uint32
}

// of returns the first link of a series' chain; 0 if it has none.
func (l *watchers) of(no uint32) uint32 {
	if int(no) >= len(l.first) {
		return 0
	}
	return l.first[no]
}

// has tells whether a series has a watch.
func (l *watchers) has(no uint32, w *Watch) bool {
	for i := l.of(no); i != 0; i = l.links[i].next {
		if l.links[i].w == w {
			return true
		}
	}
	return false
}

func (l *watchers) add(no uint32, w *Watch) {
	if more := int(no) + 1 - len(l.first); more > 0 {
		l.first = append(l.first, make([]uint32, more)...)
	}
	if len(l.links) == 0 {
		l.links = append(l.links, watcher{})
	}
	at := l.free
	if at != 0 {
		l.free = l.links[at].next
	} else {
		at = uint32(len(l.links))
		l.links = append(l.links, watcher{})
	}
	l.links[at] = watcher{w: w, next: l.first[no]}
	l.first[no] = at
}

// interest tells how much a series is watched.
func (l *watchers) interest(no uint32) (in interest) {
	for i := l.of(no); i != 0; i = l.links[i].next {
		in = max(in, l.links[i].w.interest())
	}
	return in
}

// remove takes a watch out of a series' chain; nil: all.
func (l *watchers) remove(no uint32, w *Watch) {
	if l.of(no) == 0 {
		return
	}
	for at := &l.first[no]; *at != 0; {
		i := *at
		x := &l.links[i]
		if w != nil && x.w != w {
			at = &x.next
			continue
		}
		*at = x.next
		*x = watcher{next: l.free}
		l.free = i
	}
}
