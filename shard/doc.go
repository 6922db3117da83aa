// Package shard is one hash partition of the series: the unit of parallel work
// and, in a cluster, of replication.
//
// In come log entries, through Apply, the only method that changes what a shard
// holds; out go selections of series. Between the two lies the head (the newest
// samples, in memory, backed by the log) and blocks (immutable files). Movement is
// one way: head -> hot block -> warm -> cold -> gone.
//
//   - Encode turns a part of a batch into an operation; operations joined behind a
//     version byte are the payload of a log entry (payload.go).
//   - Flush cuts the head at a log index, writes what it held into blocks and
//     commits them in the manifest (flush.go, manifest.go). The manifest is
//     replaced as a whole by rename: it is a line a block, and a file that is never
//     appended to has no torn tail.
//   - Maintain merges blocks and carries them through the tiers (compact.go).
//   - Offer, Install and Repair carry state and blocks between replicas (install.go,
//     fetch.go, repair.go). What is found damaged is in quarantine until then.
//   - Watch hands what is applied to matching series to a sink (watch.go): under the
//     lock, since that alone makes it exact what a Select may show before, and only to
//     be copied. The sink is woken after the lock.
//   - Select reads an immutable view of the blocks together with a copy of the
//     head's part (select.go, view.go, merge.go).
//
// Where two senders bring the same series, told apart by a label, a log entry says up to
// when the samples that package pair does not choose are gone. Merges drop them, and until
// then Select leaves them out (choose.go, CHOICES.md).
//
// At one timestamp the sample with the highest log index wins. Blocks of one
// window are ordered by log index, the head comes after them, and inside the head
// a late sample comes after what was in order: merger keeps the last.
//
// Apply is for one goroutine at a time; Flush and Maintain exclude each other;
// everything else is safe concurrently. Buffers passed in are copied where they
// outlive the call.
package shard
