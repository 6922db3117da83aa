// Package live evaluates PromQL as it is subscribed to.
//
// In come requests and, through model.Feeder, samples as they are applied. Out go
// events: steps with their values, the label sets that these use, series that ended,
// failures, and what could not be delivered.
//
// # Sharing
//
// A Hub has one evaluation for each distinct normalised query and step; spellings of one
// query, such as up, (up{}) and {__name__="up"}, are the same. Its events lie
// in a ring, immutable, each with a sequence number; a Subscription is a cursor into
// the ring and the number of label sets that it has been told of, some 300 bytes. One
// that falls off the ring's tail is told what it missed and goes on with the newest
// step. Nobody pushes: a subscriber is woken once when there is something again, and
// polls. So nothing that a subscriber does or fails to do reaches the evaluation, and a
// subscriber costs no goroutine. An evaluation without subscribers lingers and ends.
//
// # Steps
//
// Steps lie on multiples of the step since 1970 and are functions of time and data
// alone, so that any node, and any process after another, gives the same ones: to resume
// is to name the last step one has. A step is evaluated once it is Options.Delay old. What
// is applied for it later, up to Options.Horizon, evaluates it again; it is sent again
// only if its values differ, with a revision that is the age in milliseconds at which it
// was corrected: that ascends also where another process takes over. Where there is much
// to correct, new steps and other evaluations have their turns between. What newer samples
// change of the choice between a pair's senders (package pair) corrects nothing. Whoever resumes is
// sent the steps again that may have been corrected while it was away: those within the
// horizon before its cursor, since nobody knows what another node has sent. They are at
// hand if it was away for less than the horizon, and queried otherwise. Backfill is
// computed by range queries up to the step where the cursor stands, and further where
// the ring has moved on meanwhile; all who wait for the same steps share one query.
//
// # Evaluation
//
// A plain selector, a range function over one, and sum, count, avg, min, max and group
// over these are computed from windows: the samples of each series as far back as a step
// within the horizon can need them, read once by a Select and then extended by a feed.
// Steps are computed from the whole window, with Prometheus' arithmetic in Prometheus'
// order, not by adding and subtracting what comes and goes: that would drift, and is
// wrong where late samples, resets and NaN are normal. A step whose windows have native
// histograms, or that would have two series of one label set, is asked of the query
// engine; an evaluation that needs that again and again, or more memory than
// Options.MaxSamples, is stepped from then on. So is whatever else PromQL can say: an
// instant query a step, or one range query where several are due. An evaluation that is
// late makes its steps good, as many as the ring holds, also after the storage could not be
// read for a while; only one that is slow for long skips some, and tells. Feeds
// of what a stepped expression selects tell which of its closed steps late samples can
// change; a selector with a fixed time (@ 1600000000) is not followed.
//
// In samples mode nothing is evaluated: what is applied is passed on, samples of one
// timestamp together. A feed is given an entry before a Select can show it. Backfill
// rests on that: select, take what the feed has by then, send that live, and leave it
// out of what was selected. So does what comes in the place of a gap in the feed (Reset):
// what a client would be sent that resumes from before it, but for what the ring has.
//
// # Running
//
// One goroutine watches the clock for all evaluations and hands those that are due to
// two small pools, so that what works in memory does not wait behind what reads the storage:
// queries, backfills of samples, and an evaluation that begins, begins anew since its feed has
// lost something, or has to ask the query engine for a step. A run in memory that comes upon
// any of that leaves the rest to a run on the other pool. An evaluation runs on one worker
// at a time. The feeds' wakes only put it into the queue.
//
// In a cluster a Hub stands on cluster.Node's Feeder and FeedReader: windows are what this
// node has applied, and of shards that it does not hold, what the node has that the feed
// comes from; stepped evaluations and backfills read at level leader. While a feed Lacks
// something, steps wait: later than the horizon nothing would correct them. A feed that is
// Reset, because a shard moved or its node was lost, is begun anew with a Select.
//
// A Hub is safe for concurrent use, a Subscription for one goroutine at a time; Wake is
// called from workers, without a lock, and perhaps once more while Close returns. Events
// share memory with those of other subscribers and must not be changed. Close joins all.
// The package reaches the storage through the contracts of shard/model only.
package live
