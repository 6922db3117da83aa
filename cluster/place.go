package cluster

import (
	"maps"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/hashicorp/raft"
)

const (
	// replication is on how many nodes a shard lies, if there are as many.
	replication = 3
	// metaVotersMost is how many nodes vote in the metadata's group at most; the others
	// follow it.
	metaVotersMost = 5
)

// rendezvous returns on which nodes shards should lie: for each shard those of the
// highest weights, which are hashes of node and shard (Thaler and Ravishankar, 1998).
// No node gets more than a quarter above its even part (bounded loads: Mirrokni et al.,
// 2016). It depends on its arguments alone, and a node that comes or goes moves little
// beyond its own part.
func rendezvous(nodes []string, shards int) [][]string {
	nodes = slices.Sorted(slices.Values(nodes))
	k := min(replication, len(nodes))
	out := make([][]string, shards)
	if k == 0 {
		return out
	}
	most := (shards*k*5 + len(nodes)*4 - 1) / (len(nodes) * 4)
	load := map[string]int{}
	for s := range out {
		order := slices.Clone(nodes)
		slices.SortStableFunc(order, func(a, b string) int {
			full := func(n string) int {
				if load[n] >= most {
					return 1
				}
				return 0
			}
			if d := full(a) - full(b); d != 0 {
				return d
			}
			switch x, y := weight(a, s), weight(b, s); {
			case x > y:
				return -1
			case x < y:
				return 1
			}
			return 0
		})
		out[s] = slices.Sorted(slices.Values(order[:k]))
		for _, n := range out[s] {
			load[n]++
		}
	}
	return out
}

func weight(node string, shard int) uint64 {
	return xxhash.Sum64(append([]byte(node), 0, byte(shard), byte(shard>>8)))
}

// metaVoters returns how many of so many nodes vote in the metadata's group.
func metaVoters(nodes int) int {
	switch {
	case nodes >= metaVotersMost:
		return metaVotersMost
	case nodes >= 3:
		return 3
	}
	return min(nodes, 1)
}

// preferred returns which node should lead each shard: in order of the shards the
// replica that leads the fewest yet, and of those the first by name.
func preferred(shards [][]string) []string {
	leads := map[string]int{}
	out := make([]string, len(shards))
	for s, replicas := range shards {
		for _, n := range slices.Sorted(slices.Values(replicas)) {
			if out[s] == "" || leads[n] < leads[out[s]] {
				out[s] = n
			}
		}
		leads[out[s]]++
	}
	return out
}

// firstConfiguration is that of a group of a cluster which forms of members, by name
// with their incarnations.
func firstConfiguration(members map[string]string, group uint64, shards int) *raft.Configuration {
	names := slices.Sorted(maps.Keys(members))
	c := &raft.Configuration{}
	add := func(name string, s raft.ServerSuffrage) {
		c.Servers = append(c.Servers, raft.Server{Suffrage: s, ID: serverID(name, members[name]), Address: raft.ServerAddress(name)})
	}
	if group != uint64(metaStream) {
		for _, name := range rendezvous(names, shards)[group] {
			add(name, raft.Voter)
		}
		return c
	}
	for i, name := range names {
		if i < metaVoters(len(names)) {
			add(name, raft.Voter)
		} else {
			add(name, raft.Nonvoter)
		}
	}
	return c
}

// nodeOf returns the name in a Raft id.
func nodeOf(id raft.ServerID) string {
	name, _, _ := strings.Cut(string(id), "@")
	return name
}
