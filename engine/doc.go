// Package engine is the library that Go programs embed, and the storage under the
// server: Open a folder, Append batches, Select series, Subscribe to what is applied,
// Close.
//
// In come batches. Append validates them, splits them by the hash of the series'
// labels, encodes each part once as an operation of its shard, and hands the
// operations to a Committer, which makes them durable and applies them in the order
// of the log. Out go selections over all shards (model.Reader), and feeds of samples as
// they are applied (model.Feeder, made by engine/live).
//
// A reader sees all shards at one instant: the local log holds a lock for reading while it
// applies a group, and a reader holds it while it takes hold of all shards, so that a batch
// is there as a whole or not at all. In a cluster each shard has a log of its own, and what
// is one instant is so for each shard.
//
// Two parts of the design page are simpler here than there, for a reason: numbers of
// series are never used again, so an entry need not carry the index up to which its
// encoder had applied, a number that is gone says enough; and limits travel in the
// operation, while the bounds of time are checked before it is encoded and, against
// the retention cut, in apply.
//
// With Options.PairLabel the series of a pair of senders lie in one shard, and once a week
// the upkeep has each shard choose among them for the time that is old enough; see
// shard.Choice.
//
// A failed write, fsync or change of files ends the engine: everything answers
// model.ErrFailed and Options.OnFailure is called once. All methods are safe for
// concurrent use; a batch belongs to Append until it returns.
package engine
