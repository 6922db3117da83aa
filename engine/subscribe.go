package engine

import (
	"context"

	"github.com/strandline-db/strandline/shard/model"
)

var _ model.Feeder = (*DB)(nil)

// Subscribe implements model.Feeder: a feed of the samples of matching series as they
// are applied, in a cluster also of those that other nodes took in. It ends with ctx,
// with Close, and with the engine (model.ErrClosed). Errors: *model.LimitError,
// model.ErrClosed, or that of ctx.
func (db *DB) Subscribe(ctx context.Context, req *model.FeedRequest) (model.Feed, error) {
	f, err := db.feeds.Subscribe(ctx, req)
	if err != nil {
		return nil, err // not f, which would be a nil pointer that is no nil interface
	}
	return f, nil
}
