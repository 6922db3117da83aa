package model

import (
	"errors"
	"fmt"
)

// Bounds of small records.
const (
	MaxRecordKey   = 512       // bytes
	MaxRecordValue = 256 << 10 // bytes
)

// Errors of small records.
var (
	// ErrConflict: a guard did not hold, and nothing was changed.
	ErrConflict = errors.New("the record has changed meanwhile")
	// ErrBadRecord: a key is empty or too long, or a value too long.
	ErrBadRecord = errors.New("bad record")
)

// Record is one of the few small structured things that are kept beside the series:
// rules, subscriptions, the cluster's map. In a cluster all nodes have the same.
type Record struct {
	Key   string `json:"key"`
	Value []byte `json:"value"` // never nil
	// Rev is the revision that wrote it: larger than that of every change before.
	Rev uint64 `json:"rev"`
}

// Guard is a condition of a change: the record must have this revision.
type Guard struct {
	Key string `json:"key"`
	Rev uint64 `json:"rev"` // 0: there must be none
}

// Change is what becomes of one record.
type Change struct {
	Key    string `json:"key"`
	Value  []byte `json:"value,omitempty"`
	Delete bool   `json:"delete,omitempty"`
}

// RecordChange changes records together: all or, if a guard does not hold, none.
type RecordChange struct {
	Guards  []Guard  `json:"guards,omitempty"`
	Changes []Change `json:"changes"`
}

// Validate reports keys and values out of bounds; the error wraps ErrBadRecord.
func (c *RecordChange) Validate() error {
	for _, x := range c.Changes {
		switch {
		case x.Key == "" || len(x.Key) > MaxRecordKey:
			return fmt.Errorf("%w: a key of %d bytes is not between 1 and %d", ErrBadRecord, len(x.Key), MaxRecordKey)
		case len(x.Value) > MaxRecordValue:
			return fmt.Errorf("%w: a value of %d bytes is larger than %d", ErrBadRecord, len(x.Value), MaxRecordValue)
		}
	}
	return nil
}
