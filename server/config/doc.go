// Package config holds the one table of settings, from which the flags, the
// YAML keys and their documentation are made, and the strict YAML reader. It
// does no I/O: bytes and flag values come in, a Config goes out. The table may
// be read concurrently; a Config is not changed after Load.
package config
