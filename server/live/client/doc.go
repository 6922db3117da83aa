// Package client subscribes to the live queries of a Strandline server or cluster.
//
// A Client keeps one WebSocket for all its subscriptions. When the connection ends it
// connects again, to the next of its URLs, with exponential backoff and jitter, and
// resumes each subscription after the last step it has seen: no step is missing, none
// comes twice with the same revision, and what was corrected meanwhile comes as a correction.
// Samples that the server sends again, since it can't know which ones came, are left out, as
// long as they are among the newest 65,536. What a caller does not read in time is
// replaced by what is newer, and told as Dropped, as the server does it.
//
// A Client and its Subscriptions are safe for concurrent use, Next for one caller at a
// time. Updates are the caller's; label sets in them are shared and must not be changed.
package client
