// Package vfs is the file system under Strandline's durable files: the interface,
// the machine's own (OS), one in memory that forgets what was not synced when its
// power is cut (MemFS), and one that fails on request (FaultFS).
//
// What a caller may rely on after a power cut is what MemFS models: bytes are safe
// once File.Sync returned, names once SyncDir returned, and anything later may be
// there or not, in units of a 512-byte sector or of one directory operation, in any
// combination. A sector itself is written whole or not at all.
//
// Small files of JSON, which are replaced whole, carry a checksum (Seal).
//
// The package is a leaf: it imports nothing of the project. Buffers passed to it
// are not kept.
package vfs
