package shard

import "errors"

var (
	// ErrBadPayload: a log entry is not a payload that this version understands.
	ErrBadPayload = errors.New("bad log payload")
	// ErrManifest: the manifest is damaged or does not fit the log or the files.
	ErrManifest = errors.New("bad manifest")
)
