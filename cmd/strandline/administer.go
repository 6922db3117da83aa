package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/query"
)

// administer does one request of the admin endpoints below /api/v1/admin/cluster/. Any
// node takes it.
func administer(ctx context.Context, n *cluster.Node, what string, param func(string) string) (any, error) {
	v, err := change(ctx, n, what, param)
	switch {
	case errors.Is(err, cluster.ErrRefused):
		return nil, &query.Error{Kind: query.Execution, Err: err}
	case err != nil:
		return nil, err
	case v == nil:
		v = struct{}{}
	}
	return v, nil
}

func change(ctx context.Context, n *cluster.Node, what string, param func(string) string) (any, error) {
	shard := func() (int, error) {
		i, err := strconv.Atoi(param("shard"))
		if err != nil {
			return 0, &query.Error{Kind: query.BadData, Err: fmt.Errorf("invalid parameter \"shard\": %q is not the number of a shard", param("shard"))}
		}
		return i, nil
	}
	switch what {
	case "plan":
		return n.Propose(ctx, param("node"), param("drained") == "true")
	case "rebalance":
		return n.Rebalance(ctx, param("plan"), "rebalance")
	case "drain":
		return n.DrainNode(ctx, param("node"), param("plan"))
	case "add":
		return n.AddNode(ctx, param("node"), param("plan"))
	case "remove":
		return nil, n.RemoveNode(ctx, param("node"), param("force") == "true")
	case "pause":
		return nil, n.SetPlan(ctx, cluster.PlanPaused)
	case "resume":
		return nil, n.SetPlan(ctx, cluster.PlanRunning)
	case "cancel":
		return nil, n.SetPlan(ctx, cluster.PlanCancelling)
	case "move":
		i, err := shard()
		if err != nil {
			return nil, err
		}
		return nil, n.MoveShard(ctx, i, param("from"), param("to"))
	default: // transfer-leader
		i, err := shard()
		if err != nil {
			return nil, err
		}
		return nil, n.TransferLeader(ctx, i, param("node"))
	}
}
