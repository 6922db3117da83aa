// Package cache keeps encoded answers for a moment, so that many clients who ask
// for the same cost little more than one.
//
// In come keys and functions that compute an answer; out go the answer's bytes,
// which are shared: nobody may write to them. Each key is computed once at a time,
// whoever waits for it (single flight), in a goroutine of its own that outlives
// the client who asked first and ends early when nobody waits any more. Errors are
// shared by those who wait and not kept. Entries, bytes and computations are
// bounded; the oldest entries go first, which are also the next to expire.
//
// A Cache is safe for concurrent use. Close ends and joins all computations.
package cache
