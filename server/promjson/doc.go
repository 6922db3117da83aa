// Package promjson writes labels, times and values in JSON, byte for byte as
// Prometheus' HTTP API does. All functions append to the caller's buffer, keep
// nothing, and are safe for concurrent use.
package promjson
