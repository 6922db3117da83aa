package live

// entry is one event of an evaluation, for all its subscribers.
type entry struct {
	step    *Step
	stale   []uint32 // series that ended with step
	old     *Step    // what step, or err, is in the place of; until it is told
	dropped Dropped
	gap     []*Step // in samples mode, what was lost and read from the storage
	err     error
	t       int64  // of step or err
	held    bool   // err is of a step that will come
	at      int64  // the stamp of a first revision, see recents
	known   uint32 // the number behind those that the event may use
}

// ring holds an evaluation's newest events. Each has a sequence number; those in
// [tail, head) are there. It takes memory as they come, since few evaluations come to have
// as many as they may. The evaluation's lock guards it.
type ring struct {
	at         []entry // room for those that are there, or more
	tail, head uint64
	values     int
	maxEvents  int
	maxValues  int
}

func newRing(events, values int) ring {
	// Sequence numbers start at 1, so that a series with none is older than all.
	return ring{tail: 1, head: 1, maxEvents: events, maxValues: values}
}

func (r *ring) get(seq uint64) *entry { return &r.at[seq%uint64(len(r.at))] }

// push appends an event, and drops the oldest where that takes the ring past a bound.
func (r *ring) push(e entry) {
	r.values += size(&e)
	for r.tail < r.head && (r.head-r.tail == uint64(r.maxEvents) || r.values > r.maxValues) {
		old := r.get(r.tail)
		r.values -= size(old)
		*old = entry{}
		r.tail++
	}
	if r.head-r.tail == uint64(len(r.at)) {
		r.grow()
	}
	*r.get(r.head) = e
	r.head++
}

// leastRoom is for how many events there is room from the first on.
const leastRoom = 8

// grow makes room for more events.
func (r *ring) grow() {
	more := ring{at: make([]entry, min(max(2*len(r.at), leastRoom), r.maxEvents))}
	for seq := r.tail; seq < r.head; seq++ {
		*more.get(seq) = *r.get(seq)
	}
	r.at = more.at
}

func size(e *entry) int {
	n := 1 + samplesOf(e.gap)
	if e.step != nil {
		n += len(e.step.Values)
	}
	return n
}

// samples calls fn with each, of samples mode.
func (e *entry) samples(fn func(*Step, Value)) {
	each := func(x *Step) {
		for _, v := range x.Values {
			fn(x, v)
		}
	}
	if e.step != nil {
		each(e.step)
	}
	for _, x := range e.gap {
		each(x)
	}
}

// first finds the first revision of the step at t; false if it is not there.
func (r *ring) first(t int64) (uint64, bool) {
	for seq := r.tail; seq < r.head; seq++ {
		if e := r.get(seq); e.step != nil && e.t == t && e.step.Rev == 0 {
			return seq, true
		}
	}
	return 0, false
}

// newest finds the newest step that is not a correction; head if there is none.
func (r *ring) newest() uint64 {
	for seq := r.head; seq > r.tail; seq-- {
		if e := r.get(seq - 1); e.step != nil && e.step.Rev == 0 {
			return seq - 1
		}
	}
	return r.head
}
