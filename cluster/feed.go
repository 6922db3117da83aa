package cluster

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// noCut is the cut of a batch that cuts nothing.
const noCut = math.MinInt64

// feedRetry is how long a feed waits before it looks again for a node that has what it lacks.
const feedRetry = 200 * time.Millisecond

// Feeder gives feeds of the whole cluster: of shards with a replica here as they are
// applied here, of the others as they are applied at a node that holds them. When a shard
// moves, or that node or the connection to it is lost, the feed goes on from where the
// shard lies then and tells of it as Reset. FeedRequest.MaxSeries bounds each node's
// part. A shard that lies here comes from another node too while its leader is heard
// there and not here. It goes together with FeedReader.
func (n *Node) Feeder() model.Feeder { return (*feeder)(n) }

// FeedReader reads as Reader does, but a Select whose matchers are those of open feeds of
// Feeder reads each shard where the feed comes from, and returns once they have been given
// all that it shows. A replica here that has not come to what its leader has since this node
// started is brought there first: with what its log alone has, a client that resumes would be
// sent worse than what it has. Select fails with model.ErrUnavailable while that can't be.
func (n *Node) FeedReader() model.Reader { return &feedReader{clusterReader: (*clusterReader)(n)} }

type feeder Node

// openFeeds are the feeds of this node's subscribers.
type openFeeds struct {
	mu struct {
		sync.Mutex
		open map[*joinedFeed]struct{}
	}
}

func (o *openFeeds) add(j *joinedFeed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.open == nil {
		o.mu.open = map[*joinedFeed]struct{}{}
	}
	o.mu.open[j] = struct{}{}
}

func (o *openFeeds) remove(j *joinedFeed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.mu.open, j)
}

// of returns the feeds with the same matchers.
func (o *openFeeds) of(ms []*labels.Matcher) (out []*joinedFeed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for j := range o.mu.open {
		if slices.EqualFunc(j.req.Matchers, ms, func(a, b *labels.Matcher) bool {
			return a == b || a.Type == b.Type && a.Name == b.Name && a.Value == b.Value
		}) {
			out = append(out, j)
		}
	}
	return out
}

// joinedFeed is one feed from the replicas here and from other nodes.
type joinedFeed struct {
	n       *Node
	req     model.FeedRequest
	ctx     context.Context
	cancel  context.CancelCauseFunc
	release func() bool
	ready   chan struct{} // capacity 1
	failed  chan struct{} // capacity 1: a part has ended
	wg      sync.WaitGroup
	mu      struct {
		sync.Mutex
		local   localPart
		parts   []*remotePart
		batch   model.FeedBatch // what waits of the remote parts
		numbers uint32
		woken   bool // since the last Poll
		lacks   bool // some shards have no part
		err     error
	}
}

// localPart is the feed of the replicas here; of none before it has been opened.
type localPart struct {
	feed  model.Feed
	here  []int
	ids   map[uint32]uint32 // its numbers of series, and those that the reader knows
	batch model.FeedBatch
}

// Subscribe implements model.Feeder.
func (f *feeder) Subscribe(ctx context.Context, req *model.FeedRequest) (model.Feed, error) {
	n := (*Node)(f)
	j := &joinedFeed{n: n, req: *req, ready: make(chan struct{}, 1), failed: make(chan struct{}, 1)}
	if j.req.Buffer <= 0 {
		j.req.Buffer = maxFeedBuffer
	}
	j.req.WakeAt = min(max(j.req.WakeAt, 1), j.req.Buffer)
	j.mu.batch.Cut = noCut
	j.ctx, j.cancel = context.WithCancelCause(ctx)
	j.release = context.AfterFunc(n.ctx, func() { j.cancel(model.ErrClosed) })
	placed := n.mapped.raised()
	if err := j.arrange(true); err != nil {
		j.Close()
		return nil, err
	}
	n.feeds.add(j)
	j.wg.Go(func() { j.follow(placed) })
	return j, nil
}

// follow is the goroutine that keeps the parts where the shards lie.
func (j *joinedFeed) follow(placed <-chan struct{}) {
	wait := hostEvery
	for {
		timer := time.NewTimer(wait)
		select {
		case <-placed:
		case <-j.failed:
		case <-timer.C:
		case <-j.ctx.Done():
			timer.Stop()
			j.fail(context.Cause(j.ctx))
			j.drop()
			return
		}
		timer.Stop()
		placed, wait = j.n.mapped.raised(), hostEvery
		if err := j.arrange(false); err != nil {
			if wait = feedRetry; errors.Is(err, model.ErrLimit) {
				j.fail(err)
			}
			j.n.opts.Logger.Debug("cluster: a feed lacks shards", "err", err)
		}
	}
}

// arrange opens what is missing and ends what is of use no longer. Whatever is opened
// after the first time lacks what was applied in between, which is told as Reset, and
// brings nothing that was brought before: what it takes the place of has ended by
// then, and its node has all that any had.
func (j *joinedFeed) arrange(first bool) error {
	here, far := j.n.splitFeeds()
	far = j.endUseless(far)
	if err := j.arrangeHere(here, first); err != nil {
		return err
	}
	if err := j.arrangeFar(far, first); err != nil {
		return err
	}
	j.mu.Lock()
	j.mu.lacks = false
	j.mu.Unlock()
	return nil
}

// arrangeFar opens parts that bring shards of other nodes. A part brings all of its shards or
// none: if they can't be had together, each is had by itself, so that one of which nobody
// hears the leader does not keep back the others.
func (j *joinedFeed) arrangeFar(far []int, first bool) error {
	err := j.openParts(far, first)
	if err == nil || first || len(far) == 1 {
		return err
	}
	errs := make([]error, len(far))
	var wg sync.WaitGroup
	for i, s := range j.lacking(far) {
		wg.Go(func() { errs[i] = j.openParts([]int{s}, false) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// openParts opens parts that bring these shards between them. After the first time each tells
// that it lacks what was applied before.
func (j *joinedFeed) openParts(shards []int, first bool) error {
	p := &reading{n: j.n, wanted: Wanted{Level: Leader}}
	return p.each(j.ctx, shards, false, func(ctx context.Context, name string, of []int) error {
		err := j.open(ctx, name, of, first)
		if err == nil && !first {
			j.reset()
		}
		return err
	})
}

// lacking returns those of some shards that no part brings.
func (j *joinedFeed) lacking(shards []int) []int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(shards), func(s int) bool {
		return slices.ContainsFunc(j.mu.parts, func(x *remotePart) bool { return slices.Contains(x.shards, s) })
	})
}

// endUseless ends the parts with shards that are not far or have left their node, and
// returns the shards that no part brings.
func (j *joinedFeed) endUseless(far []int) []int {
	m := j.n.currentMap()
	useless := func(x *remotePart) bool {
		return x.ended() || slices.ContainsFunc(x.shards, func(s int) bool { return !slices.Contains(far, s) || !m.shards[s].on(x.node) })
	}
	j.mu.Lock()
	var old, kept []*remotePart
	lacking := slices.Clone(far)
	for _, x := range j.mu.parts {
		if useless(x) {
			old = append(old, x)
			continue
		}
		kept = append(kept, x)
		lacking = slices.DeleteFunc(lacking, func(s int) bool { return slices.Contains(x.shards, s) })
	}
	j.mu.parts = kept
	j.mu.lacks = j.mu.lacks || len(lacking) > 0
	j.mu.Unlock()
	for _, x := range old {
		x.cancel()
		<-x.done
	}
	return lacking
}

// arrangeHere makes the local part that of the replicas here. What it had goes on until those
// that have come are as far as their leaders, which may take long.
func (j *joinedFeed) arrangeHere(here []int, first bool) error {
	j.mu.Lock()
	old := j.mu.local
	if old.feed != nil && slices.Equal(old.here, here) {
		j.mu.Unlock()
		return nil
	}
	j.mu.lacks = true
	j.mu.Unlock()
	if !first {
		came := slices.DeleteFunc(slices.Clone(here), func(s int) bool { return slices.Contains(old.here, s) })
		if err := j.n.reachLeaders(j.ctx, came); err != nil {
			return err
		}
	}
	if old.feed != nil {
		j.mu.Lock()
		j.mu.local = localPart{} // what it brings from here on its successor would bring again
		j.mu.Unlock()
		old.feed.Close()
	}
	req := j.req
	req.Wake = func() { j.wake(false) }
	feed, err := j.n.replicas.Subscribe(j.ctx, here, &req)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.mu.local = localPart{feed: feed, here: here, ids: map[uint32]uint32{}}
	j.mu.Unlock()
	if !first {
		j.reset()
	}
	return nil
}

// reachLeaders brings shards that lie here to what their leaders have.
func (n *Node) reachLeaders(ctx context.Context, shards []int) error {
	var groups []*group
	for _, s := range shards {
		if g := n.group(uint64(s)); g != nil {
			groups = append(groups, g)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	return n.catchUp(ctx, Leader, groups)
}

// reset tells the reader that something is missing.
func (j *joinedFeed) reset() {
	j.mu.Lock()
	j.mu.batch.Reset = true
	j.mu.Unlock()
	j.wake(false)
}

func (j *joinedFeed) fail(err error) {
	j.mu.Lock()
	if j.mu.err == nil {
		j.mu.err = err
	}
	j.mu.Unlock()
	j.wake(true)
}

// wake tells the reader, once between two polls, that there is something to poll; with
// again once more.
func (j *joinedFeed) wake(again bool) {
	j.mu.Lock()
	was := j.mu.woken
	j.mu.woken = true
	j.mu.Unlock()
	if was && !again {
		return
	}
	select {
	case j.ready <- struct{}{}:
	default:
	}
	if j.req.Wake != nil {
		j.req.Wake()
	}
}

// take adds what a remote part brought.
func (j *joinedFeed) take(x *remotePart, in *model.FeedBatch) error {
	j.mu.Lock()
	b := &j.mu.batch
	for _, s := range in.Series {
		x.ids[s.ID] = j.mu.numbers
		b.Series = append(b.Series, model.FeedSeries{ID: j.mu.numbers, Labels: s.Labels})
		j.mu.numbers++
	}
	for i := range in.Samples {
		id, ok := x.ids[in.Samples[i].Series]
		if !ok {
			j.mu.Unlock()
			return errMessage
		}
		in.Samples[i].Series = id
	}
	if b.Lost > 0 || len(b.Samples)+len(in.Samples) > j.req.Buffer {
		b.Lost += int64(len(in.Samples))
	} else {
		b.Samples = append(b.Samples, in.Samples...)
	}
	b.Lost += in.Lost
	b.Reset = b.Reset || in.Reset
	b.Cut = max(b.Cut, in.Cut)
	x.applied = in.Applied
	wake := len(b.Samples) >= j.req.WakeAt || b.Lost > 0 || b.Reset
	j.mu.Unlock()
	if wake {
		j.wake(false)
	}
	return nil
}

// Poll implements model.Feed.
func (j *joinedFeed) Poll(dst *model.FeedBatch) error {
	clear(dst.Series)
	clear(dst.Samples)
	applied := dst.Applied[:0]
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.woken = false
	*dst, j.mu.batch = j.mu.batch, model.FeedBatch{Series: dst.Series[:0], Samples: dst.Samples[:0], Cut: noCut}
	dst.Lacks = j.mu.lacks
	for _, x := range j.mu.parts {
		applied = append(applied, x.applied...)
		dst.Lacks = dst.Lacks || x.ended()
	}
	dst.Applied = applied
	if j.mu.err != nil {
		return j.mu.err
	}
	if err := j.pollHereLocked(dst); err != nil {
		return err
	}
	slices.SortFunc(dst.Applied, func(a, b model.ShardIndex) int { return a.Shard - b.Shard })
	return nil
}

// pollHereLocked adds what the local part has.
func (j *joinedFeed) pollHereLocked(dst *model.FeedBatch) error {
	l := &j.mu.local
	if l.feed == nil { // it is being arranged anew
		return nil
	}
	if err := l.feed.Poll(&l.batch); err != nil {
		return err
	}
	for _, s := range l.batch.Series {
		l.ids[s.ID] = j.mu.numbers
		dst.Series = append(dst.Series, model.FeedSeries{ID: j.mu.numbers, Labels: s.Labels})
		j.mu.numbers++
	}
	for _, s := range l.batch.Samples {
		s.Series = l.ids[s.Series]
		dst.Samples = append(dst.Samples, s)
	}
	dst.Lost += l.batch.Lost
	dst.Reset = dst.Reset || l.batch.Reset
	dst.Cut = max(dst.Cut, l.batch.Cut)
	dst.Applied = append(dst.Applied, l.batch.Applied...)
	dst.Lacks = dst.Lacks || j.n.lagging(l.here)
	return nil
}

// lagging tells whether one of the replicas here may lack what was committed a while ago.
func (n *Node) lagging(shards []int) bool {
	now := time.Now()
	return slices.ContainsFunc(shards, func(s int) bool { g := n.group(uint64(s)); return g == nil || g.unheard(now) })
}

// Next implements model.Feed.
func (j *joinedFeed) Next(ctx context.Context, dst *model.FeedBatch) error {
	for {
		if err := j.Poll(dst); err != nil || !dst.Empty() {
			return err
		}
		select {
		case <-j.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close implements model.Feed.
func (j *joinedFeed) Close() {
	j.release()
	j.cancel(model.ErrClosed)
	j.wg.Wait()
	j.drop()
}

// drop gives back what the feed holds.
func (j *joinedFeed) drop() {
	j.n.feeds.remove(j)
	j.mu.Lock()
	feed := j.mu.local.feed
	j.mu.Unlock()
	if feed != nil {
		feed.Close()
	}
}

type feedReader struct{ *clusterReader }

// SelectAll implements model.Reader.
func (r *feedReader) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	n := (*Node)(r.clusterReader)
	var feeds []*joinedFeed
	for _, req := range reqs {
		feeds = append(feeds, n.feeds.of(req.Matchers)...)
	}
	p := n.readingFor(feeds)
	if err := n.reachLeaders(ctx, p.untold()); err != nil {
		return nil, err
	}
	sels, err := r.clusterReader.SelectAll(context.WithValue(ctx, readingKey{}, p), reqs)
	if err != nil {
		return nil, err
	}
	for _, j := range feeds {
		if err := j.flush(ctx); err != nil {
			model.CloseAll(sels)
			return nil, err
		}
	}
	return sels, nil
}

// readingFor returns a read that goes where feeds come from. A shard that they have from
// different places, as while one feed after another moves, is read at a node that comes
// first to what the leader has: nothing else has all that came before each of them began.
func (n *Node) readingFor(feeds []*joinedFeed) *reading {
	p := &reading{n: n, wanted: Wanted{Level: Leader}, here: map[int]*group{}}
	p.mu.at = map[int]synced{}
	for _, g := range n.serving() {
		p.here[int(g.id)] = g
	}
	from := map[int][]synced{}
	for _, j := range feeds {
		j.sources(from)
	}
	for s, all := range from {
		first := all[0]
		same := !slices.ContainsFunc(all, func(x synced) bool { return x != first })
		if !same || first.name != n.name {
			delete(p.here, s)
		}
		if same && first.name != n.name {
			p.mu.at[s] = first
		}
	}
	return p
}

// untold returns the shards that the read finds here and that have never been what was
// committed at a known time.
func (p *reading) untold() (shards []int) {
	for s, g := range p.here {
		if g.id != uint64(metaStream) && g.staleness(time.Now()) == math.MaxInt64 {
			shards = append(shards, s)
		}
	}
	return shards
}

// sources adds where the feed comes from, by shard.
func (j *joinedFeed) sources(from map[int][]synced) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.mu.local.here {
		from[s] = append(from[s], synced{j.n.name, j.n.life})
	}
	for _, x := range j.mu.parts {
		if x.ended() {
			continue
		}
		for _, s := range x.shards {
			from[s] = append(from[s], synced{x.node, x.life})
		}
	}
}

// flush returns once the feed has been given all that its parts have by now. A part that
// fails meanwhile makes it begin anew, and is not waited for.
func (j *joinedFeed) flush(ctx context.Context) error {
	j.mu.Lock()
	parts := j.mu.parts
	j.mu.Unlock()
	for _, x := range parts {
		if err := x.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}
