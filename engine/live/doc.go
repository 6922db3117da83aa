// Package live delivers applied samples to subscribers of selectors.
//
// In come subscriptions (model.FeedRequest) and, from the shards, what each log entry
// brought to the series that match; out go batches (model.FeedBatch). A shard marks the
// series that someone watches, so that a sample of any other costs one test of a flag,
// and a shard without watches nothing. It gathers what an entry brings to watched series
// and hands it over at the entry's end, still under its lock, which makes the order exact:
// what a Select shows, the feed has been given. A feed that need not be woken for many
// samples is given those of several entries at once: when it is polled, which fetches
// them first, or when two thousand wait. An entry touches little of what a processor's
// caches hold, so that handing over a few samples to each of a hundred feeds with every
// entry costs several times as much as handing over many to each once. Handing over is a copy
// into the feed's buffer; a buffer that is full counts what it drops, and whoever applies
// never waits.
//
// A feed belongs to one reader; Close may be called from any goroutine. The buffer is
// swapped with the reader's batch, so that two pieces of memory go back and forth. Label
// sets and histograms are shared with other feeds and immutable. The package starts no
// goroutine.
package live
