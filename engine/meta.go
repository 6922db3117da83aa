package engine

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// metaStore keeps what is small and structured: the descriptions of metrics, and
// records. All of it is in memory for reading, and in a metaFile for ever.
type metaStore struct {
	file    metaFile
	writing sync.Mutex // held by the one that changes something; what lies below mu may be read under it
	failed  error      // of a save: nobody knows what the file holds since, so nothing is saved any more. Under writing
	mu      struct {
		sync.RWMutex
		metaState
		watchers map[*watcher]struct{}
	}
}

// metaState is what a metaStore holds.
type metaState struct {
	known   map[string]model.Metadata
	records map[string]model.Record
	place   place
	age     *age // nil: never recorded. It is this folder's own, and in no image
}

// place is how far changes of records have come.
type place struct {
	Rev uint64 `json:"rev"` // of the last change
	// Applied is the last entry of the metadata's log that changed records: an entry
	// up to it that comes again, after a restart, must not.
	Applied uint64 `json:"applied"`
}

// metaChange is one durable step: records with a nil value go.
type metaChange struct {
	described []model.Metadata
	records   []model.Record
	place     *place
	age       *age
}

// metaFile makes changes durable. For one caller at a time.
type metaFile interface {
	load() (metaState, error)
	// save stores the change; after gives what the whole becomes by it.
	save(c *metaChange, after func() *metaState) error
	close() error
}

type watcher struct {
	prefix  string
	changed chan struct{}
}

func newMetaState() metaState {
	return metaState{known: map[string]model.Metadata{}, records: map[string]model.Record{}}
}

// openMeta opens the store in a data folder: a bbolt file, which needs the machine's
// file system; over any other a plain file. It fails with a *model.CorruptionError if that
// is damaged.
func openMeta(fsys vfs.FS, dir string) (_ *metaStore, err error) {
	m := &metaStore{}
	m.mu.watchers = map[*watcher]struct{}{}
	name := metaName(fsys, dir)
	if _, real := fsys.(vfs.OS); real {
		m.file, m.mu.metaState, err = loadBolt(fsys, name)
	} else {
		m.file = &plainMeta{fs: fsys, name: name}
		m.mu.metaState, err = m.file.load()
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func metaName(fsys vfs.FS, dir string) string {
	if _, real := fsys.(vfs.OS); real {
		return path.Join(dir, "meta.db")
	}
	return path.Join(dir, "meta.json")
}

// openReplicatedMeta is openMeta for a node of a cluster. A damaged file is put aside: the
// store begins empty, and another replica must fill it.
func (db *DB) openReplicatedMeta() (*metaStore, error) {
	fsys, dir := db.opts.FS, db.dir
	m, err := openMeta(fsys, dir)
	var damage *model.CorruptionError
	if !errors.As(err, &damage) {
		return m, err
	}
	db.opts.Logger.Error("the metadata can't be opened; it begins empty, and another replica must fill it", "err", err)
	name := metaName(fsys, dir)
	if err := errors.Join(fsys.Rename(name, name+".damaged"), fsys.SyncDir(dir)); err != nil {
		return nil, err
	}
	return openMeta(fsys, dir)
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

// saveWriting makes a change durable, then visible.
func (m *metaStore) saveWriting(c *metaChange) error {
	if m.failed == nil {
		m.failed = m.file.save(c, func() *metaState { return m.mu.with(c) })
	}
	if m.failed != nil {
		return m.failed
	}
	for _, w := range m.apply(c) {
		select {
		case w.changed <- struct{}{}:
		default: // told already, and not yet looked
		}
	}
	return nil
}

// with returns the state after a change, sharing nothing that is written to.
func (s metaState) with(c *metaChange) *metaState {
	n := metaState{known: maps.Clone(s.known), records: maps.Clone(s.records), place: s.place, age: s.age}
	n.apply(c)
	return &n
}

func (s *metaState) apply(c *metaChange) {
	for _, md := range c.described {
		s.known[md.Metric] = md
	}
	for _, r := range c.records {
		if r.Value == nil {
			delete(s.records, r.Key)
		} else {
			s.records[r.Key] = r
		}
	}
	if c.place != nil {
		s.place = *c.place
	}
	if c.age != nil {
		s.age = c.age
	}
}

// apply makes a durable change visible and returns whom to tell.
func (m *metaStore) apply(c *metaChange) (told []*watcher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.apply(c)
	for w := range m.mu.watchers {
		if slices.ContainsFunc(c.records, func(r model.Record) bool { return strings.HasPrefix(r.Key, w.prefix) }) {
			told = append(told, w)
		}
	}
	return told
}

// put stores what fresh returned, durably.
func (m *metaStore) put(fresh []model.Metadata) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	return m.saveWriting(&metaChange{described: fresh})
}

// recordAge keeps the time by which samples grow old.
func (m *metaStore) recordAge(a *age) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	return m.saveWriting(&metaChange{age: a})
}

// age returns what recordAge kept; nil: nothing yet. The caller must not change it.
func (m *metaStore) age() *age {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.age
}

// change changes records; failed are the guards, by position, that did not hold. An
// index other than 0 is that of the log's entry; one that was applied before does nothing.
func (m *metaStore) change(index uint64, changes []model.RecordChange) (failed [][]int, err error) {
	m.writing.Lock()
	defer m.writing.Unlock()
	at := m.mu.place
	failed = make([][]int, len(changes))
	if index != 0 && index <= at.Applied {
		return failed, nil
	}
	overlay := map[string]model.Record{}
	for i := range changes {
		failed[i] = m.mu.change(&changes[i], overlay, &at)
	}
	if len(overlay) == 0 {
		return failed, nil
	}
	at.Applied = max(at.Applied, index)
	step := &metaChange{place: &at}
	for _, k := range slices.Sorted(maps.Keys(overlay)) {
		step.records = append(step.records, overlay[k])
	}
	return failed, m.saveWriting(step)
}

// change puts one change's records into overlay, which lies over the state.
func (s *metaState) change(c *model.RecordChange, overlay map[string]model.Record, at *place) (failed []int) {
	for i, g := range c.Guards {
		r, ok := overlay[g.Key]
		if !ok {
			r = s.records[g.Key]
		}
		if r.Value == nil {
			r.Rev = 0 // there is none
		}
		if r.Rev != g.Rev {
			failed = append(failed, i)
		}
	}
	if len(failed) > 0 {
		return failed
	}
	at.Rev++
	for _, x := range c.Changes {
		r := model.Record{Key: x.Key, Rev: at.Rev}
		if !x.Delete {
			r.Value = append([]byte{}, x.Value...)
		}
		overlay[x.Key] = r
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
	for _, k := range slices.Sorted(maps.Keys(m.mu.known)) {
		out = append(out, m.mu.known[k])
	}
	return out
}

// list returns the records below a prefix, sorted by key.
func (m *metaStore) list(prefix string) []model.Record {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []model.Record
	for k, r := range m.mu.records {
		if strings.HasPrefix(k, prefix) {
			r.Value = slices.Clone(r.Value)
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b model.Record) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// MetaImage is everything in a metaStore, for another replica.
type MetaImage struct {
	Metadata []model.Metadata `json:"metadata"`
	Records  []model.Record   `json:"records"`
	Rev      uint64           `json:"rev"`
	Applied  uint64           `json:"applied"`
}

func (m *metaStore) image() MetaImage {
	m.writing.Lock() // for all of one moment
	defer m.writing.Unlock()
	i := MetaImage{Metadata: m.get(""), Records: m.list("")}
	i.Rev, i.Applied = m.mu.place.Rev, m.mu.place.Applied
	return i
}

// install makes the store that of an image.
func (m *metaStore) install(i *MetaImage) error {
	c := &metaChange{described: i.Metadata, records: i.Records, place: &place{i.Rev, i.Applied}}
	keep := map[string]bool{}
	for _, r := range i.Records {
		keep[r.Key] = true
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	for k := range m.mu.records {
		if !keep[k] {
			c.records = append(c.records, model.Record{Key: k})
		}
	}
	return m.saveWriting(c)
}

// watch tells of changes below a prefix: the channel holds one message at most.
func (m *metaStore) watch(prefix string) (<-chan struct{}, func()) {
	w := &watcher{prefix, make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.watchers[w] = struct{}{}
	return w.changed, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.mu.watchers, w)
	}
}

// revision returns how far changes of records have come.
func (m *metaStore) revision() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.place.Rev
}

func (m *metaStore) close() error {
	if err := m.file.close(); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}
