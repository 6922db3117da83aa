package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// consistent reads linearizably at a node while others write: what was acknowledged
// before is there, and nothing that was not sent.
func (c *trio) consistent(m *member) error {
	c.mu.Lock()
	acked := map[string]map[int64]uint64{}
	for key, samples := range c.acked {
		acked[key] = map[int64]uint64{}
		for at, v := range samples {
			acked[key][at] = v
		}
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ctx, _, err := m.node.Sync(ctx, Wanted{Level: Linearizable, Held: true})
	if err != nil {
		return err
	}
	sel, err := model.Select(ctx, m.node.Reader(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64})
	if err != nil {
		return err
	}
	defer sel.Close()
	for _, s := range sel.Series {
		var cols model.Columns
		if err := s.Read(&cols); err != nil {
			return err
		}
		key := s.Labels().String()
		c.mu.Lock()
		for i, t := range cols.T {
			v := math.Float64bits(cols.V[i])
			if sent, ok := c.sent[key][t]; !ok || sent != v {
				c.t.Errorf("%s: %s at %d: %x was never sent", m.node.name, key, t, v)
			}
			if want, ok := acked[key][t]; ok && want == v {
				delete(acked[key], t)
			}
		}
		c.mu.Unlock()
	}
	for key, left := range acked {
		if len(left) > 0 {
			c.t.Errorf("%s: %s lacks %d acknowledged samples", m.node.name, key, len(left))
		}
	}
	return nil
}

// members tells whether each group's members are those of the map, all voters.
func (c *trio) members(at string) error {
	n := c.nodes[at].node
	m := n.currentMap()
	for i := range m.shards {
		v, err := n.askConfig(context.Background(), uint64(i))
		if err != nil {
			return err
		}
		var names []string
		for _, s := range v.Servers {
			if !s.Voter {
				return fmt.Errorf("shard %d: %s has no vote", i, s.ID)
			}
			names = append(names, s.Node)
		}
		want := slices.Sorted(slices.Values(m.shards[i].Replicas))
		if slices.Sort(names); !slices.Equal(names, want) || m.shards[i].Learner != "" {
			return fmt.Errorf("shard %d is on %v, and the map says %+v", i, names, m.shards[i])
		}
	}
	return nil
}

// view is what a group's leader says of it to a node.
func (c *trio) view(at string, id uint64) (v *groupView) {
	c.t.Helper()
	c.await("the members of "+groupName(id), func() (err error) {
		v, err = c.nodes[at].node.askConfig(context.Background(), id)
		return err
	})
	return v
}

// load writes and reads at all nodes until stop is called.
func (c *trio) load() (stop func()) {
	nodes := []*member{}
	for _, m := range c.nodes {
		nodes = append(nodes, m)
	}
	var wg sync.WaitGroup
	var writes, reads atomic.Int64
	done := make(chan struct{})
	run := func(fn func(i int64)) {
		wg.Go(func() {
			for i := int64(0); ; i++ {
				select {
				case <-done:
					return
				default:
					fn(i)
				}
			}
		})
	}
	for w := range int64(2) {
		run(func(i int64) {
			m := nodes[(i+w)%int64(len(nodes))]
			if err := c.writeAt(m, 1_000_000*(w+1)+c.next.Add(1), 1); err == nil {
				writes.Add(1)
			} else if !errors.Is(err, model.ErrUnavailable) && !errors.Is(err, model.ErrOverloaded) {
				c.t.Errorf("%s: %v", m.node.name, err)
			}
			time.Sleep(2 * time.Millisecond)
		})
	}
	run(func(i int64) {
		m := nodes[i%int64(len(nodes))]
		if err := c.consistent(m); err == nil {
			reads.Add(1)
		} else if !errors.Is(err, model.ErrUnavailable) {
			c.t.Errorf("reading at %s: %v", m.node.name, err)
		}
		time.Sleep(10 * time.Millisecond)
	})
	return func() {
		close(done)
		wg.Wait()
		if writes.Load() == 0 || reads.Load() == 0 {
			c.t.Errorf("%d writes and %d reads", writes.Load(), reads.Load())
		}
		c.t.Logf("%d writes and %d reads", writes.Load(), reads.Load())
	}
}

// TestFiveAndBack makes five nodes of three and three of five, under load.
func TestFiveAndBack(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 16})
	c.mustWrite("n1", 0, 200)
	c.flush("n1")
	c.flush("n2")
	c.join("n4", "n1")
	c.join("n5", "n4")
	stop := c.load()
	if _, err := c.nodes["n5"].node.Rebalance(t.Context(), "", "test"); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanDone)
	for _, name := range []string{"n4", "n5"} {
		if near, _ := c.nodes[name].node.split(); len(near) == 0 {
			t.Errorf("%s got no shard", name)
		}
	}
	c.await("five voters of the metadata", func() error {
		if v := c.nodes["n1"].node.meta().voters(); len(v) != 5 {
			return fmt.Errorf("%v", v)
		}
		return nil
	})
	stop()
	c.sameHashes()
	c.checkAll()
	stop = c.load()
	for _, name := range []string{"n4", "n5"} {
		if _, err := c.nodes["n1"].node.DrainNode(t.Context(), name, ""); err != nil {
			t.Fatal(err)
		}
		c.await("no shard on "+name, func() error {
			m, err := c.nodes["n1"].node.freshMap(t.Context())
			if err == nil && m.plan.Open() {
				err = fmt.Errorf("%+v %+v", m.plan, m.moves)
			}
			return err
		})
	}
	stop()
	for _, name := range []string{"n4", "n5"} {
		if err := c.nodes["n1"].node.RemoveNode(t.Context(), name, false); err != nil {
			t.Fatal(err)
		}
		c.await("three voters of the metadata", func() error {
			v, err := c.nodes["n1"].node.askConfig(t.Context(), uint64(metaStream))
			if err == nil && slices.ContainsFunc(v.Servers, func(s serverView) bool { return s.Node == name }) {
				err = fmt.Errorf("%+v", v.Servers)
			}
			return err
		})
		c.stop(name)
	}
	c.mustWrite("n2", 500, 10)
	c.await("members", func() error { return c.members("n1") })
	c.sameHashes()
	c.checkAll()
}

// TestCancelMove cancels a move in each of its phases: it is undone, or, once its source
// has left, ends.
func TestCancelMove(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 100)
	c.flush("n1")
	c.join("n4", "n1")
	for _, in := range []Phase{PhaseAdding, PhaseCatchingUp, PhaseVerifying, PhasePromoting, PhaseHandover, PhaseRemoving} {
		var once sync.Once
		c.setOnPhase(func(n *Node, m *Move) {
			if n.currentMap().moves[0].Phase == in && m.Phase != in {
				once.Do(func() {
					if err := n.SetPlan(context.Background(), PlanCancelling); err != nil {
						t.Errorf("%s: %v", in, err)
					}
				})
			}
		})
		if err := c.nodes["n2"].node.MoveShard(t.Context(), 1, "n1", "n4"); err != nil {
			t.Fatal(err)
		}
		c.planEnds(PlanCancelled)
		want := "n1"
		if in == PhaseRemoving {
			want = "n4"
		}
		m, err := c.nodes["n2"].node.freshMap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !m.shards[1].on(want) || len(m.shards[1].Replicas) != 3 {
			t.Fatalf("cancelled in %s: shard 1 is %+v, the move %+v", in, m.shards[1], m.moves)
		}
		c.await("members", func() error { return c.members("n2") })
		c.mustWrite("n3", 1000, 10)
		c.checkAll()
		c.sameHashes()
	}
}

// TestRemoveTarget: a node that a plan is yet to give something can't be removed before
// the plan is cancelled: its moves would lead nowhere.
func TestRemoveTarget(t *testing.T) {
	c := newTrio(t, Options{})
	c.join("n4", "n1")
	var once sync.Once
	c.setOnPhase(func(n *Node, _ *Move) {
		once.Do(func() { // the phase is not noted any more: the move stays planned
			if err := n.SetPlan(context.Background(), PlanPaused); err != nil {
				t.Error(err)
			}
		})
	})
	n1 := c.nodes["n1"].node
	if err := n1.MoveShard(t.Context(), 1, "n2", "n4"); err != nil {
		t.Fatal(err)
	}
	c.await("the pause", func() error {
		m, err := n1.freshMap(t.Context())
		if err == nil && m.plan.State != PlanPaused {
			err = fmt.Errorf("%+v", m.plan)
		}
		return err
	})
	if err := n1.RemoveNode(t.Context(), "n4", false); !errors.Is(err, ErrRefused) {
		t.Fatalf("removed a node that a plan leads to: %v", err)
	}
	if err := n1.SetPlan(t.Context(), PlanCancelling); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanCancelled)
	if err := n1.RemoveNode(t.Context(), "n4", false); err != nil {
		t.Fatal(err)
	}
}

// TestMoveOutlivesCoordinator stops the node that leads the metadata in each phase of
// a move: the next one carries it on.
func TestMoveOutlivesCoordinator(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 100)
	c.flush("n1")
	c.join("n4", "n1")
	from, to := "n1", "n4"
	for _, in := range []Phase{PhaseAdding, PhaseCatchingUp, PhaseVerifying, PhasePromoting, PhaseHandover, PhaseRemoving, PhaseDeleting, PhaseDone} {
		stop := make(chan string, 1)
		var once sync.Once
		c.setOnPhase(func(n *Node, m *Move) {
			if m.Phase == in {
				once.Do(func() {
					stop <- n.name
					<-n.ctx.Done()
				})
			}
		})
		if err := c.nodes["n2"].node.MoveShard(t.Context(), 1, from, to); err != nil {
			t.Fatal(err)
		}
		var name string
		select {
		case name = <-stop:
		case <-time.After(30 * time.Second):
			t.Fatalf("the move never came to %s: %+v", in, c.nodes["n2"].node.currentMap().moves)
		}
		c.stop(name)
		var other string
		for other = range c.nodes {
			break
		}
		c.mustWrite(other, 2000, 10)
		c.start(name)
		c.planEnds(PlanDone)
		m, err := c.nodes[other].node.freshMap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.moves[0].Phase != PhaseDone || m.shards[1].on(from) || !m.shards[1].on(to) {
			t.Fatalf("%s: shard 1 is %+v, the move %+v", in, m.shards[1], m.moves)
		}
		c.await("members", func() error { return c.members(other) })
		c.checkAll()
		c.sameHashes()
		from, to = to, from
	}
}

// TestOtherPlan: a node whose moves are not those that were looked at is neither drained nor
// marked as one that is to be.
func TestOtherPlan(t *testing.T) {
	c := newTrio(t, Options{})
	n := c.nodes["n1"].node
	c.await("the map", n.Ready)
	if _, err := n.DrainNode(t.Context(), "n3", "of another day"); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	m, err := n.freshMap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.nodes["n3"].State != stateMember || m.plan != nil {
		t.Errorf("it is %s, plan %+v", m.nodes["n3"].State, m.plan)
	}
	p, err := n.Propose(t.Context(), "n3", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.DrainNode(t.Context(), "n3", p.ID); err != nil {
		t.Error(err)
	}
	c.planEnds(PlanDone)
}

// TestCancelDuringInstall: a replica that is to go does not first fetch all that it was to hold.
func TestCancelDuringInstall(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 1})
	n := c.nodes["n2"].node
	c.holdInstall("n4", "n1")
	c.await("the cancel", func() error { return n.SetPlan(t.Context(), PlanCancelling) })
	c.planEnds(PlanCancelled)
	c.await("members", func() error { return c.members("n2") })
	c.await("nothing at n4", func() error { return c.hostsOnly("n4") })
	c.checkAll()
}

// TestWriteDuringInstall: a node whose replica of a shard is being made takes writes for the
// shard also when another node leads it since.
func TestWriteDuringInstall(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 1})
	release := c.holdInstall("n4", "n1")
	old, _ := c.leaderOf(0)
	other := map[string]string{"n1": "n2", "n2": "n3", "n3": "n2"}[old]
	c.await("the other leader", func() error {
		if err := c.nodes[other].node.TransferLeader(t.Context(), 0, other); err != nil {
			return err
		}
		if !c.nodes[other].node.group(0).leads() {
			return errNotLeader
		}
		return nil
	})
	c.mustWrite("n4", 10_000, 10)
	release()
	c.planEnds(PlanDone)
	c.checkAll()
}

// holdInstall begins to move shard 0 from a node to one that it lets enter, and returns while
// that installs what it can't fetch before release is called.
func (c *trio) holdInstall(to, from string) (release func()) {
	c.t.Helper()
	for i := range int64(8) {
		c.mustWrite(from, 10*i, 10)
	}
	for name := range c.nodes {
		c.flush(name)
	}
	c.join(to, from)
	n := c.nodes[to].node
	for range fetchesAhead {
		n.fetches.slots <- struct{}{}
	}
	release = sync.OnceFunc(func() {
		for range fetchesAhead {
			<-n.fetches.slots
		}
	})
	c.t.Cleanup(release)
	if err := c.nodes[from].node.MoveShard(c.t.Context(), 0, from, to); err != nil {
		c.t.Fatal(err)
	}
	c.await("the install", func() error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Millisecond)
		defer cancel()
		o, err := n.replicas.Shard(0).Offer(ctx)
		if err == nil {
			return errors.Join(errors.New("it has not begun"), o.Release())
		}
		return nil
	})
	return release
}

// TestPlanBesideRemoval: a plan does not lead to a node that was removed while it was made.
func TestPlanBesideRemoval(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	c.join("n4", "n1")
	n := c.nodes["n2"].node
	m, err := n.freshMap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.RemoveNode(t.Context(), "n4", false); err != nil {
		t.Fatal(err)
	}
	p := &Proposal{Moves: []Move{{Shard: 1, From: "n1", To: "n4", Phase: PhasePlanned}}}
	if err := n.begin(t.Context(), m, p, "test", nil); !errors.Is(err, ErrRefused) {
		t.Errorf("a plan with a move to a node that was removed: %v", err)
	}
}

// TestOverruledCoordinator: one that goes by what the map was takes out nobody whom the next one
// has brought in.
func TestOverruledCoordinator(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	c.join("n4", "n1")
	n, n4 := c.nodes["n2"].node, c.nodes["n4"].node
	was, err := n.freshMap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.MoveShard(t.Context(), 1, "n1", "n4"); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanDone)
	c.await("all members", func() error { return c.members("n2") })
	before := c.view("n2", 1)
	old := &coordinator{n: n}
	if err := old.removeStrays(t.Context(), was); err == nil {
		t.Error("it found nothing to do")
	}
	if ok, err := old.out(t.Context(), 1, "n4", before); ok || err == nil {
		t.Error("it took out a member")
	}
	after := c.view("n2", 1)
	if after.Index != before.Index || !after.votes(n4.raftID) {
		t.Errorf("%+v, and before %+v", after, before)
	}
}
