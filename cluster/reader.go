package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/shard/model"
)

// Reader reads the whole cluster: shards with a replica here from it, the others at
// nodes that hold them. With a context of Sync it gives what was asked for there; with
// any other it reads at level Leader.
func (n *Node) Reader() model.Reader { return (*clusterReader)(n) }

type clusterReader Node

var _ model.Reader = (*clusterReader)(nil)

type readingKey struct{}

// reading is one read: which node is asked for each shard that is not here.
type reading struct {
	n      *Node
	wanted Wanted
	// here are the replicas that Sync brought to what is wanted; nil without a Sync. One
	// that is complete only since then is read elsewhere.
	here map[int]*group
	// age is how old the data may be that was read, in nanoseconds; unknownAge tops all. It is
	// that of Sync at first. Nil without a Sync.
	age *atomic.Int64
	mu  struct {
		sync.Mutex
		at       map[int]synced  // where shards are as fresh as is wanted
		bad      map[string]bool // nodes that failed
		lax      bool            // what is wanted could not be had, and the read goes on without
		warnings []string
	}
}

// synced is a node, and the life of it in which a shard there was brought to what is
// wanted: once it has started again it may be behind.
type synced struct {
	name string
	life uint64
}

// readingOf returns the read that a context belongs to: that of Sync, or one of its own.
func (n *Node) readingOf(ctx context.Context) (*reading, error) {
	if p, ok := ctx.Value(readingKey{}).(*reading); ok {
		return p, nil
	}
	p := &reading{n: n, wanted: Wanted{Level: Leader}}
	ctx, cancel := context.WithTimeout(ctx, n.opts.CommitTimeout)
	defer cancel()
	_, err := p.sync(ctx)
	return p, err
}

// Warnings tells what a read with a context of Sync left out.
func Warnings(ctx context.Context) []string {
	p, ok := ctx.Value(readingKey{}).(*reading)
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mu.warnings)
}

// Age tells how old at most the data is that a read with a context of Sync has seen so far:
// what Sync said, or more if a node was lost since and another was asked. It is negative if
// that is unknown.
func Age(ctx context.Context) time.Duration {
	p, ok := ctx.Value(readingKey{}).(*reading)
	if !ok || p.age == nil {
		return unknownAge
	}
	return time.Duration(p.age.Load())
}

// aged notes that some of what is read may be as old.
func (p *reading) aged(by time.Duration) {
	for p.age != nil {
		old := p.age.Load()
		if old == int64(unknownAge) || by != unknownAge && int64(by) <= old || p.age.CompareAndSwap(old, int64(by)) {
			return
		}
	}
}

func (p *reading) warn(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.mu.warnings, text) {
		p.mu.warnings = append(p.mu.warnings, text)
	}
}

// split tells the shards with a replica here from the others.
func (n *Node) split() (here, elsewhere []int) {
	for i := range n.replicas.Len() {
		if n.holdsShard(i) {
			here = append(here, i)
		} else {
			elsewhere = append(elsewhere, i)
		}
	}
	return here, elsewhere
}

// unknownAge is that of a read that takes what other nodes have, however old.
const unknownAge time.Duration = -1

// sync brings what is here, and at the nodes that are asked for the rest, to where the
// read wants it, and returns how old it may be.
func (p *reading) sync(ctx context.Context) (time.Duration, error) {
	for {
		age, err := p.syncOnce(ctx)
		if !errors.Is(err, errNoReplica) && !errors.Is(err, errUnheard) || ctx.Err() != nil || p.n.ctx.Err() != nil {
			return age, err
		}
		// A replica here has left meanwhile, or hears its leader no more: its shard is read
		// elsewhere.
	}
}

func (p *reading) syncOnce(ctx context.Context) (time.Duration, error) {
	all, elsewhere := p.place()
	groups, unheard := all, []*group(nil)
	if !p.wanted.Metadata { // nobody else can be asked for that
		groups, unheard = p.partUnheard(all)
		unheard = p.withoutMeta(unheard)
	}
	var age, far time.Duration
	var past around
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() (err error) {
		age, err = p.syncHeard(ctx, groups)
		return err
	})
	if len(unheard) > 0 {
		eg.Go(func() error {
			past = p.syncAround(ctx, unheard)
			return past.err
		})
	}
	if len(elsewhere) > 0 {
		eg.Go(func() (err error) {
			far, err = p.syncAt(ctx, elsewhere)
			return err
		})
	}
	err := eg.Wait()
	if err == nil && past.from != nil {
		p.takeOver(past.from, unheard)
	}
	if p.wanted.Metadata && errors.Is(err, errUnheard) {
		err = errMetaUnheard
	}
	if p.wanted.Partial && errors.Is(err, model.ErrUnavailable) && !errors.Is(err, errNoReplica) && !errors.Is(err, errUnheard) {
		p.mu.Lock()
		p.mu.lax, p.mu.bad, p.mu.warnings = true, nil, nil // from here on all that have data will do
		p.mu.Unlock()
		p.warn("the data may be older than was asked for: " + err.Error())
		if len(elsewhere) > 0 {
			return unknownAge, nil
		}
		return stalest(all), nil
	}
	return max(age, far, past.age), err
}

// place notes the replicas here that the read is about, and returns them and the shards that
// lie elsewhere.
func (p *reading) place() (here []*group, elsewhere []int) {
	p.here = map[int]*group{}
	for _, g := range p.n.serving() {
		if !p.wanted.Metadata || g.id == uint64(metaStream) {
			here, p.here[int(g.id)] = append(here, g), g
		}
	}
	for s := range p.n.replicas.Len() {
		if p.here[s] == nil && !p.wanted.Metadata {
			elsewhere = append(elsewhere, s)
		}
	}
	return here, elsewhere
}

// syncAt finds, for each shard, a node that holds it and comes to be as fresh as is wanted.
// While none hears the leader it asks them anew.
func (p *reading) syncAt(ctx context.Context, shards []int) (time.Duration, error) {
	for {
		age, err := p.syncAtOnce(ctx, shards)
		if !errors.Is(err, errUnheard) {
			return age, err
		}
		if p.n.pause(ctx) != nil {
			return 0, fmt.Errorf("%w: no node hears the leaders of shards %v: %w", model.ErrUnavailable, shards, context.Cause(ctx))
		}
		p.mu.Lock()
		p.mu.bad = nil
		p.mu.Unlock()
	}
}

func (p *reading) syncAtOnce(ctx context.Context, shards []int) (time.Duration, error) {
	var mu sync.Mutex
	var most time.Duration
	err := p.each(ctx, shards, true, func(ctx context.Context, name string, of []int) error {
		age, err := p.askSync(ctx, name, of)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		most = max(most, age)
		return nil
	})
	return most, err
}

// each calls fn for every node of a set that holds the shards between them; those of one
// that can't be reached are asked of others, until there are none. syncing says that fn makes
// them fresh.
func (p *reading) each(ctx context.Context, shards []int, syncing bool, fn func(context.Context, string, []int) error) error {
	var unheard atomic.Bool // by a node that holds some
	for open := shards; len(open) > 0; {
		byNode, orphans := p.assign(open)
		if len(orphans) > 0 {
			if unheard.Load() {
				return errUnheard
			}
			err := fmt.Errorf("%w: no node with a replica of shards %v can be reached", model.ErrUnavailable, orphans)
			if !p.wanted.Partial || syncing && p.demands() { // one that can't be as fresh has data still
				return err
			}
			p.warn(fmt.Sprintf("shards %v are missing: no node with a replica can be reached", orphans))
		}
		var mu sync.Mutex
		open = nil
		eg, ectx := errgroup.WithContext(ctx)
		for name, of := range byNode {
			eg.Go(func() error {
				err := fn(ectx, name, of)
				if !errors.Is(err, model.ErrUnavailable) && !errors.Is(err, model.ErrOverloaded) || ectx.Err() != nil {
					return err
				}
				p.n.opts.Logger.Debug("cluster: a read goes to another node", "failed", name, "err", err)
				p.fail(name, of)
				unheard.CompareAndSwap(false, errors.Is(err, errUnheard))
				mu.Lock()
				defer mu.Unlock()
				open = append(open, of...)
				return nil
			})
		}
		if err := eg.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (p *reading) fail(name string, of []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.bad == nil {
		p.mu.bad = map[string]bool{}
	}
	p.mu.bad[name] = true
	for _, s := range of {
		delete(p.mu.at, s)
	}
}

// assign gives each shard to a node that holds it: to that which Sync chose; otherwise
// to one with a connection, and of those to the one that has most of them, so that few
// are asked. One that gives no sign of life is not waited for, if the read can do without.
func (p *reading) assign(shards []int) (byNode map[string][]int, orphans []int) {
	m := p.n.currentMap()
	p.mu.Lock()
	defer p.mu.Unlock()
	score := map[string]int{}
	for _, s := range shards {
		for _, name := range m.shards[s].Replicas {
			score[name]++
		}
	}
	for name := range score {
		if p.mu.bad[name] || name == p.n.name || p.mu.lax && p.n.mute(name) {
			delete(score, name)
		} else if p.n.link(name).up() {
			score[name] += len(m.shards)
		}
	}
	byNode = map[string][]int{}
	for _, s := range shards {
		best := p.mu.at[s].name
		if best == "" {
			for _, name := range m.shards[s].Replicas {
				if score[name] > 0 && (best == "" || score[name] > score[best]) {
					best = name
				}
			}
		}
		if best == "" {
			orphans = append(orphans, s)
			continue
		}
		byNode[best] = append(byNode[best], s)
	}
	return byNode, orphans
}

// run calls here for the shards that lie here, and at for the others, by node. A node
// that Sync did not choose is brought to what is wanted first.
func (p *reading) run(ctx context.Context, here func(context.Context, []int) error, at func(context.Context, synced, []int) error) error {
	near, far := p.n.split()
	near = slices.DeleteFunc(near, func(s int) bool {
		if p.replaced(s) {
			far = append(far, s)
			return true
		}
		return false
	})
	elsewhere := func(ctx context.Context, name string, of []int) error {
		for {
			late, life := p.notSynced(name, of)
			if len(late) == 0 {
				return at(ctx, synced{name, life}, of)
			}
			age, err := p.askSync(ctx, name, late)
			if err != nil {
				return err
			}
			p.aged(age)
		}
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return p.each(ctx, far, false, elsewhere) })
	eg.Go(func() error { return p.nearby(ctx, near, here, elsewhere) })
	return eg.Wait()
}

// nearby is the part of run for the shards that lie here. One that moves away meanwhile, or
// with a block that is found damaged, is read elsewhere.
func (p *reading) nearby(ctx context.Context, near []int, here func(context.Context, []int) error, elsewhere func(context.Context, string, []int) error) error {
	for again := false; ; again = true {
		err := here(ctx, near)
		if err == nil && slices.ContainsFunc(near, p.replaced) {
			return errNoReplica
		}
		damaged := model.IsDamage(err)
		if !errors.Is(err, errNoReplica) && !damaged || ctx.Err() != nil {
			return err
		}
		var lost []int
		near = slices.DeleteFunc(near, func(s int) bool {
			if p.n.holdsShard(s) && !p.replaced(s) && (!damaged || p.n.replicas.Shard(s).Sound()) {
				return false
			}
			lost = append(lost, s)
			return true
		})
		if damaged && len(lost) == 0 && again { // a block may have been repaired meanwhile, but not each time
			return err
		}
		if e := p.each(ctx, lost, false, elsewhere); damaged && errors.Is(e, model.ErrUnavailable) {
			return fmt.Errorf("%w; of the other replicas: %v", err, e)
		} else if e != nil {
			return e
		}
	}
}

// replaced tells whether a shard's replica here is not the one that Sync has waited for.
func (p *reading) replaced(shard int) bool {
	return p.here != nil && (p.here[shard] == nil || p.here[shard] != p.n.group(uint64(shard)))
}

// demands tells whether a replica may have data and yet not what is wanted.
func (p *reading) demands() bool {
	return p.wanted.Level != Stale || len(p.wanted.Applied) > 0 || p.wanted.MaxStaleness != 0
}

// notSynced returns the shards for which a node must first be brought to what is wanted, or
// be asked how old they are, all of them in one life of it; if there are none, that life: 0 if
// any will do.
func (p *reading) notSynced(name string, of []int) (late []int, life uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.lax {
		p.aged(unknownAge)
		return nil, 0
	}
	if !p.demands() {
		for _, s := range of {
			if p.mu.at[s].name != name {
				late = append(late, s)
			}
		}
		return late, 0
	}
	for _, s := range of {
		if x := p.mu.at[s]; x.name == name && life == 0 {
			life = x.life
		}
	}
	for _, s := range of {
		if p.mu.at[s] != (synced{name, life}) {
			late = append(late, s)
		}
	}
	return late, life
}

// askSync brings replicas at another node to what is wanted, and notes it.
func (p *reading) askSync(ctx context.Context, name string, shards []int) (time.Duration, error) {
	n, w := p.n, &p.wanted
	req := putUvarints(nil, uint64(w.Level), uint64(w.MaxStaleness), uint64(len(w.Applied)))
	for _, a := range w.Applied {
		req = putUvarints(req, uint64(a.Shard), a.Index)
	}
	for _, s := range shards {
		req = putUvarints(req, uint64(s))
	}
	b, err := n.link(name).call(ctx, kindSync, 0, req)
	if err != nil {
		return 0, err
	}
	d := &decoder{b: b}
	age, life := time.Duration(d.uvarint()), d.uvarint()
	if err := d.end(); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.at == nil {
		p.mu.at = map[int]synced{}
	}
	for s, x := range p.mu.at {
		if x.name == name && x.life != life {
			delete(p.mu.at, s)
		}
	}
	for _, s := range shards {
		p.mu.at[s] = synced{name, life}
	}
	return age, nil
}

// answerSync is the other side of askSync.
func (n *Node) answerSync(ctx context.Context, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	w := Wanted{Level: Level(d.uvarint()), MaxStaleness: time.Duration(d.uvarint())}
	for k := d.uvarint(); k > 0 && !d.bad; k-- {
		w.Applied = append(w.Applied, model.ShardIndex{Shard: d.count(), Index: d.uvarint()})
	}
	var groups []*group
	var ids []uint64
	for len(d.b) > 0 {
		s := d.uvarint()
		if s >= uint64(n.replicas.Len()) || !n.holdsShard(int(s)) {
			return nil, errNoReplica
		}
		g := n.group(s)
		if g == nil {
			return nil, errNoReplica
		}
		groups, ids = append(groups, g), append(ids, s)
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	p := &reading{n: n, wanted: w}
	if _, unheard := p.partUnheard(groups); len(unheard) > 0 { // another may hear them
		return nil, errUnheard
	}
	ctx, cancel := n.whileReached(ctx, n.opts.CommitTimeout, ids)
	defer cancel()
	age, err := p.syncHeard(ctx, groups)
	return putUvarints(nil, uint64(age), n.life), err
}

// SelectAll implements model.Reader.
func (r *clusterReader) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	n := (*Node)(r)
	var mu sync.Mutex
	var near []*model.Selection
	var parts [][]*model.Selection // by node
	// What is selected outlives the parallel calls: it ends with the caller's context.
	p, err := n.readingOf(ctx)
	if err != nil {
		return nil, err
	}
	err = p.run(ctx,
		func(_ context.Context, shards []int) error {
			model.CloseAll(near) // one of their shards has moved away
			var err error
			near, err = n.selectHere(ctx, shards, reqs)
			return err
		},
		func(_ context.Context, at synced, shards []int) error {
			s, err := n.selectAt(ctx, at, shards, reqs)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			parts = append(parts, s)
			return nil
		})
	if near != nil {
		parts = append(parts, near)
	}
	out := make([]*model.Selection, len(reqs))
	for k, req := range reqs {
		if out[k] = joinSelections(parts, k); err == nil {
			err = req.Allows(len(out[k].Series))
		}
	}
	if err != nil {
		model.CloseAll(out)
		return nil, err
	}
	return out, nil
}

// joinSelections makes one of those that nodes have for the request with a number.
func joinSelections(parts [][]*model.Selection, k int) *model.Selection {
	if len(parts) == 1 {
		return parts[0][k]
	}
	out := &model.Selection{Release: func() {
		for _, p := range parts {
			p[k].Close()
		}
	}}
	for _, p := range parts {
		out.Series = append(out.Series, p[k].Series...)
	}
	slices.SortFunc(out.Series, func(a, b model.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return out
}

// names gathers what kindNames gives from everywhere.
func (r *clusterReader) names(ctx context.Context, what uint64, name string, req *model.SelectRequest,
	here func(context.Context, model.Reader) error, add func(*decoder),
) error {
	n := (*Node)(r)
	var mu sync.Mutex
	p, err := n.readingOf(ctx)
	if err != nil {
		return err
	}
	return p.run(ctx, func(ctx context.Context, shards []int) error {
		err := here(ctx, n.replicas.Reader(shards))
		if err == nil && !n.holdsAll(shards) {
			err = errNoReplica
		}
		return err
	}, func(ctx context.Context, at synced, shards []int) error {
		b, err := n.bulk(at.name).call(ctx, kindNames, 0, append(putBytes(putUvarints(nil, at.life, what), name), putSelect(nil, shards, req)...))
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		d := &decoder{b: b}
		add(d)
		return d.end()
	})
}

func (r *clusterReader) strings(ctx context.Context, what uint64, name string, req *model.SelectRequest,
	local func(context.Context, model.Reader) ([]string, error),
) ([]string, error) {
	var far, near []string
	err := r.names(ctx, what, name, req, func(ctx context.Context, m model.Reader) (err error) {
		near, err = local(ctx, m)
		return err
	}, func(d *decoder) { far = append(far, d.strings()...) })
	if err != nil {
		return nil, err
	}
	if len(far) == 0 {
		return near, nil
	}
	out := append(far, near...)
	slices.Sort(out)
	return slices.Compact(out), nil
}

// LabelNames implements model.Reader.
func (r *clusterReader) LabelNames(ctx context.Context, req *model.SelectRequest) ([]string, error) {
	return r.strings(ctx, askNames, "", req, func(ctx context.Context, m model.Reader) ([]string, error) { return m.LabelNames(ctx, req) })
}

// LabelValues implements model.Reader.
func (r *clusterReader) LabelValues(ctx context.Context, name string, req *model.SelectRequest) ([]string, error) {
	return r.strings(ctx, askValues, name, req, func(ctx context.Context, m model.Reader) ([]string, error) { return m.LabelValues(ctx, name, req) })
}

// Exemplars implements model.Reader.
func (r *clusterReader) Exemplars(ctx context.Context, req *model.SelectRequest) ([]model.SeriesExemplars, error) {
	var far, near []model.SeriesExemplars
	err := r.names(ctx, askExemplars, "", req, func(ctx context.Context, m model.Reader) (err error) {
		near, err = m.Exemplars(ctx, req)
		return err
	}, func(d *decoder) { far = append(far, d.exemplars()...) })
	out := append(far, near...)
	slices.SortFunc(out, func(a, b model.SeriesExemplars) int { return labels.Compare(a.Labels, b.Labels) })
	return out, err
}

// Metadata implements model.Reader: every node has it.
func (r *clusterReader) Metadata(ctx context.Context, metric string) ([]model.Metadata, error) {
	if p, ok := ctx.Value(readingKey{}).(*reading); ok && p.metaBehind() {
		return nil, errMetaUnheard
	}
	return (*Node)(r).replicas.Reader(nil).Metadata(ctx, metric)
}
