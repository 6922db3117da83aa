// Package pair makes one clean series of what two or more senders say of the same
// thing: Prometheus replicas that scrape the same targets and send the same series, told
// apart by a replica label.
//
// In come the samples of each sender's series; out go those that stand for all. The
// choice looks at timestamps alone (and at whether a sample is a stale marker), inside
// one aligned bucket of time at a time. So it is the same on every replica of a shard,
// in whatever pieces the samples are read, and choosing again from what was chosen
// changes nothing: the rest may be dropped. When it is dropped does matter to what comes
// late, and so is for the log to say: see shard.Choice.
//
// # The rule
//
// In each bucket of ten minutes the sender with most samples wins, stale markers not
// counted; of equals the first by the label's value. Where the winner has a gap of more than
// one and a half of its interval, the others' samples fill it, whoever has the next.
// Senders must have the same scrape interval, of at most half a bucket.
//
// Nothing here does I/O or keeps what it is given. A Chooser is scratch memory for one
// goroutine at a time.
package pair
