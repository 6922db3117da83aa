// Package cluster replicates an engine: every shard is a Raft group
// (hashicorp/raft), and so is the metadata; all groups of a node share one log on
// disk with one fsync (package wal) and one connection to each peer.
//
// Node is the engine's Committer. In come operations for shards, at any node; each
// goes to the leader of its group, which joins what waits into one log entry, and is
// answered once a majority has fsynced the entry and the leader has applied it. Out
// go the same calls of apply, in the same order, on every replica.
//
//	engine -> Node.Commit -> group (propose, or forward to the leader)
//	       -> raft -> logStore -> wal, and transport -> link -> peer
//	       -> machine.apply -> engine.Replica -> shard
//
// The snapshot store of a group is the shard's manifest: a flush is a Raft snapshot,
// and a replica that is too far behind gets the manifest and fetches the blocks.
//
// A node's Raft id is its name and its incarnation, a random number that lives in
// the data folder: a node that lost its folder is another one to Raft, and can't
// vote a second time.
//
// A leader's entries go out to the followers while its own log makes them durable, and no
// success is shown to Raft before it has (late.go): so the fsyncs of the two run beside
// each other, and the leader's is often that of other groups' entries that it follows.
//
// One request has operations for many groups, led by different nodes. What of it goes the
// same way at the same time shares a frame (wire.expect): its operations for one leader, the
// entries of a leader's round, the answers to the requests of one frame. The log does the
// same for fsyncs (see package wal), and commits are announced all together (announce.go).
//
// An operation that is not answered is sent again, perhaps another way. No attempt is taken
// once a later one has been (fence.go), so that none comes late and undoes a newer write.
//
// Heartbeats of all groups go out together with the node's beat (beat.go), and tell the
// followers how fresh their state is.
//
// A node that finds the end of its log damaged takes part again only when it knows
// what it must not vote against (doubt.go).
//
// TestSimulation runs three nodes on virtual time over a network and disks that fail by a
// seed. What waits here waits on channels and timers, never for a mutex that another holds
// while it waits: on virtual time that would be a standstill.
//
// Which nodes there are and where each shard lies is the cluster's map, records of the
// metadata's group (map.go). A node runs replicas of the shards that the map gives it
// (host.go), enters a cluster by any of its nodes (enter.go), sends what concerns other
// shards to where they lie (route.go, reader.go), and, if it leads the metadata, carries
// out the plan of moves (coordinate.go, move.go). Raft and the links know nodes by name;
// where they listen is looked up when they are dialled (book.go).
//
//	reader -> replicas here, and link -> kindSelect, kindRead at nodes that hold the rest
//
// A shard whose leader a replica here can't hear is read as one that lies elsewhere, if
// another node comes to what the read wants (around.go). So is one of which the index of a block is
// found damaged. Damage that is found only as samples are read fails the read: what is read is of
// one instant, and the block is repaired meanwhile.
//
// What can be worked out from a shard alone is asked of the nodes that hold it, so that
// results travel and not samples (work.go). What is asked is opaque here.
//
//	reader.Scatter -> worker here, and link -> kindWork, kindWorkPoll -> worker there
//
// A backup's shards that do not lie here are copied from where they do (backup.go), by the
// means that repair blocks.
//
// Feeds of applied samples are joined from the replicas here and from nodes that hold the
// other shards (feed.go, feedpart.go; the other side is feedserve.go), or that hear a leader
// which this one does not (detour.go). A Select of
// FeedReader reads where the feed comes from, so that nothing falls between the two.
//
//	subscriber <- joinedFeed <- replicas here, and link <- kindFeedPoll <- servedFeed
//
// Nothing here knows what an operation means; the files are those of engine and wal,
// the network is an interface (Network). All exported methods are safe for
// concurrent use.
package cluster
