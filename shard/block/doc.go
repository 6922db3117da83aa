// Package block is an immutable file that holds one shard's samples of one time
// range, with its own index and checksums. FORMAT.md describes every byte.
//
// In come series in order of key with their chunks (Writer); out come the series that
// match (Reader.Select), where their chunks lie (Reader.Series) and the chunks' bytes
// (Reader.Chunk). What a chunk's bytes mean is package chunk's matter.
//
// Reads use ReadAt, never a mapping, so a failing disk is an error and no signal.
// Every section carries a CRC32C that is verified each time it is read; damage is a
// *model.CorruptionError. A Writer is for one goroutine; a Reader is safe for
// concurrent use. Slices that come out of a Reader are the caller's.
package block
