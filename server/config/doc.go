// Package config holds the one table of settings, from which the flags, the
// YAML keys and their documentation are made, and the strict YAML reader. It
// does no I/O. Values are plain strings until read; the table and a parsed
// Values are safe for concurrent reading.
package config
