package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// waitsFor notes what the start of this node waits for, and what is to be done if that does not
// come; "" when it waits no longer.
func (n *Node) waitsFor(why string) {
	n.waits.Store(&why)
	if n.opts.OnWait != nil {
		n.opts.OnWait(why)
	}
}

// inDoubt says whom a node in doubt waits for, and what to do.
func (n *Node) inDoubt(ctx context.Context, missing []string, mine *tails, heard map[raft.ServerID]*tails) string {
	for i, who := range missing {
		missing[i] += n.whySilent(ctx, who, heard)
	}
	todo := "`strandline cluster remove NODE --force` takes it out, or this node can start on an empty folder"
	if alone := lacksMajority(mine, heard, n.holders); len(alone) > 0 {
		todo = fmt.Sprintf("nothing can tell any more what was acknowledged of %s: stop all nodes, and run `strandline cluster recover` on the folder that goes furthest", strings.Join(alone, ", "))
	}
	return fmt.Sprintf("not taking part before these nodes have said how far their logs go: %s. Start them with the folders that they had. If one is gone for good, %s",
		strings.Join(missing, ", "), todo)
}

// whySilent says in brackets why a member, or a node, does not answer; "" if nothing is known.
func (n *Node) whySilent(ctx context.Context, who string, heard map[raft.ServerID]*tails) string {
	name := nodeOf(raft.ServerID(who))
	if !slices.Contains(n.currentMap().members(stateMember, stateDraining, stateRemoved), name) {
		return ""
	}
	another := func(id raft.ServerID) bool { return nodeOf(id) == name && string(id) != who && name != who }
	there, err := n.hello(ctx, name)
	if err == nil && there.Name == name && another(serverID(name, there.Incarnation)) || slices.ContainsFunc(slices.Collect(maps.Keys(heard)), another) {
		return fmt.Sprintf(" (%s runs on another folder now)", name)
	}
	return strings.TrimPrefix(n.link(name).awaited(), name)
}

// lacksMajority returns the groups for which somebody must still answer and of whose members too
// few have who don't doubt their logs to be a majority without this node.
func lacksMajority(mine *tails, heard map[raft.ServerID]*tails, holders func(uint64) []string) (groups []string) {
	for id := range mine.groups {
		one := &tails{id: mine.id, groups: map[uint64]tail{id: mine.groups[id]}}
		if len(unheard(one, heard, holders)) == 0 {
			continue
		}
		cs := configurationsOf(id, mine, heard)
		sure := func(s raft.ServerID) bool { t := heard[s]; return t != nil && t.has(id) && !t.doubts }
		if len(cs) == 0 || slices.ContainsFunc(cs, func(c configured) bool { return !c.majority(sure) }) {
			groups = append(groups, groupName(id))
		}
	}
	slices.Sort(groups)
	return groups
}
