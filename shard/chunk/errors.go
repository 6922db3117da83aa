package chunk

import "errors"

// Errors that a caller can tell apart with errors.Is.
var (
	// ErrCorrupt: the bytes are not a chunk.
	ErrCorrupt = errors.New("chunk is corrupt")
	// ErrUnknownEncoding: a column has an encoding that this version doesn't know,
	// most likely because a newer version wrote the chunk.
	ErrUnknownEncoding = errors.New("chunk has an unknown encoding")
)
