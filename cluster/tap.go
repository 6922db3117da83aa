package cluster

import "github.com/hashicorp/raft"

// tap is, in tests, between the groups of a node and what they write and apply, so that
// what happened can be done again without Raft.
type tap interface {
	// stored and deleted are called before and after an operation of a group's log; err is
	// its outcome.
	stored(group uint64, logs []*raft.Log) (done func(err error))
	deleted(group, first, last uint64) (done func(err error))
	// machine may wrap a group's machine.
	machine(group uint64, m machine) machine
}
