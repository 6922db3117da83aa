// Package ingest takes samples in: remote-write 1.0 and 2.0 over HTTP, and text
// forms for import and export.
//
// A remote-write body is decompressed into pooled memory and scanned in place:
// the columns of a model.Batch are filled without an allocation per series or
// sample, and a series' key is the label bytes of the message where they lie (or,
// for 2.0, is put together from the symbols). Labels are not decoded here; whether
// a key is well-formed is judged by the storage, for new series only.
//
// Ownership: everything in a batch handed to an Appender is valid until Append
// returns, and is overwritten by a later request. Handler is safe for concurrent
// use and starts no goroutine.
//
// What a request may cost is bounded before it is spent: the declared length is
// checked before memory is taken for it, and the columns that a body can unfold
// into are limited to a few times its size.
package ingest
