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
// under a new id and old chunks stay readable. Timestamps, start timestamps, lengths and
// most values are columns of integers: a transform (see transform.go) makes small
// residuals of them, and layers (see layers.go) pack these by the bit. Values become
// integers if they are decimals of one exponent, exact or blurred, as nearly all
// metrics are, else by their bit patterns; a file enc_*.go holds each encoding.
//
// The encoder looks at a column once, then computes exact sizes of the encodings that
// are likely from what it saw, and writes only the smallest. On recorded exporters, XOR
// alone (as in Gorilla) takes 0.57 bytes a value; this takes 0.18 (chunks of 240).
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
