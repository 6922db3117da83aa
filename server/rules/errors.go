package rules

import "errors"

// Errors of this package.
var (
	// ErrBadOptions: an option can't be used.
	ErrBadOptions = errors.New("bad rules options")
	// ErrBadRules: a rule file can't be used; the message names file and line.
	ErrBadRules = errors.New("bad rule file")
	// ErrDuplicate: a recording rule's result has two series that its labels make one.
	ErrDuplicate = errors.New("vector contains metrics with the same labelset after applying rule labels")
	// ErrDuplicateAlert: an alerting rule's labels make two of its alerts one.
	ErrDuplicateAlert = errors.New("vector contains metrics with the same labelset after applying alert labels")
	// ErrLimit: a rule gave more series or alerts than its group's limit.
	ErrLimit = errors.New("exceeded limit")
	// ErrResult: a rule's expression gave neither a vector nor a scalar.
	ErrResult = errors.New("rule result is not a vector or scalar")
	// ErrRejected: the storage refused a sample of a rule's result.
	ErrRejected = errors.New("rule result was not stored")
)
