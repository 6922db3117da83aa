// Package wal is an append-only log of opaque records: many streams in one
// sequence of preallocated segment files, one fsync for a group of waiting callers.
//
// In come entries (stream, index, term, type, bytes) and a few control records; out
// come the same entries, by position (Get) or in one sequential pass (Replay). An
// Append that returned without an error has been fsynced. FORMAT.md describes every
// byte; Verify and Dump read it offline.
//
// Durability. Appends of concurrent callers are joined into one batch: the first
// caller to get the writer's lock writes for all that wait. A batch carries its
// number, its place and a CRC32C, so bytes of another place or time are never taken
// for it. Only one batch is in flight, hence a crash damages at most the last, and
// only bytes after the last whole batch are cut on start-up. Damage before that is a
// *CorruptionError, or, with PutAside, cut too and doubted (aside.go). After a failed write or fsync the log answers ErrFailed for ever:
// the page cache can't be trusted, and nothing is tried again.
//
// With a Pace a log serves many appenders that know nothing of each other: it learns which
// streams are written at about the same time (company), and a write waits a little for those
// that are about to come, so that one fsync serves all.
//
// All methods are safe for concurrent use. Data given to Append is copied before it
// returns; data handed to a Replay callback is valid until the callback returns.
package wal
