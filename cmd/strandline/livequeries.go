package main

import (
	"context"
	"errors"

	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/query"
	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live"
	"github.com/strandline-db/strandline/shard/model"
)

// living is what evaluates live queries and pushes their results.
type living struct {
	hub   *qlive.Hub
	api   *live.Server
	watch func() // ends what looks whether this node was removed, and waits
}

// startLive starts live queries over the open storage.
func (n *node) startLive(q *query.Engine) (*living, error) {
	c := n.cfg
	feeder, reader := model.Feeder(n.db), model.Reader(n.db)
	if n.cluster != nil {
		feeder, reader = n.cluster.Feeder(), n.cluster.FeedReader()
	}
	hub, err := qlive.New(feeder, reader, q, &qlive.Options{
		Delay: orNegative(c.LiveDelay), Horizon: orNegative(c.LiveHorizon), MaxBackfill: c.LiveMaxBackfill,
		MaxSeries: c.LiveMaxSeries, MaxQueries: c.LiveMaxQueries, MaxSubscribers: c.LiveMaxConnections * c.LiveMaxSubscriptions,
		ReplicaLabel: c.ReplicaLabel, Logger: n.log,
	})
	if err != nil {
		return nil, err
	}
	o := &live.Options{
		MaxConns: min(c.LiveMaxConnections, c.MaxConnections), MaxSubs: c.LiveMaxSubscriptions, MaxSeries: c.LiveMaxSeries,
		MaxMessage: int(c.LiveMaxMessageBytes), WriteTimeout: c.LiveWriteTimeout, Origins: c.LiveOrigins, Compression: c.LiveCompression,
		Registerer: n.reg, Logger: n.log, Audit: n.denied, Access: n.server.Access,
	}
	if cl := n.cluster; cl != nil {
		o.Sync = func(ctx context.Context, a model.Applied) error {
			_, _, err := cl.Sync(ctx, cluster.Wanted{Level: cluster.Stale, Applied: a, Held: true})
			return foreign(err)
		}
	}
	l := &living{hub: hub}
	if l.api, err = live.New(hub, o); err != nil {
		return nil, errors.Join(err, hub.Close())
	}
	l.watch = n.watchRemoval(l.api)
	return l, nil
}

// watchRemoval sends the clients elsewhere when this node was removed from its cluster; the
// result ends that and waits. The node still serves who comes, with what others hold.
func (n *node) watchRemoval(api *live.Server) func() {
	if n.cluster == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if n.cluster.AwaitRemoval(ctx) == nil {
			n.log.Warn("this node was removed from the cluster: live clients are sent elsewhere")
			api.Drain("this node was removed from the cluster")
		}
	}()
	return func() { cancel(); <-done }
}

// close sends the clients elsewhere; those that have not gone when ctx ends are cut.
func (l *living) close() error {
	l.watch()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	err := l.api.Close(ctx)
	if errors.Is(err, context.DeadlineExceeded) { // they were slow, and are told nothing more
		err = nil
	}
	return errors.Join(err, l.hub.Close())
}
