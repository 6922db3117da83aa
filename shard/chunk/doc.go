// Package chunk compresses the samples of one series.
//
// In go columns: timestamps, values (or opaque blobs) and, if a sender gives
// them, start timestamps. Out comes a self-contained byte string that decodes
// into flat slices, many values at a time. Every float64 comes back bit for bit.
// The bytes are described in FORMAT.md.
//
// # Encodings
//
// Each column carries the id of its encoding, so that a better encoding joins
// under a new id and old chunks stay readable. The encoder gathers what it must
// know of a column (see profile) in one pass, lets each encoding compute its exact
// size from that, and writes only the smallest.
//
// # Ownership and concurrency
//
// An Encoder and a Decoder are scratch memory to be reused: each belongs to one
// goroutine at a time, and the zero value is ready for use. Both append to slices
// of the caller and keep no reference to them. Blobs that a Decoder returns alias
// the chunk's bytes. In steady state nothing is allocated.
//
// The package does no I/O and checks no checksum: that is the block's job. A
// decoder given damaged bytes returns an error or wrong values, but it never
// panics, never reads past the chunk and never yields more than MaxSamples.
package chunk
