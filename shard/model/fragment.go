package model

import "context"

// Bounds of what is asked and answered of one fragment, in bytes.
const (
	MaxFragmentRequest = 128 << 10
	MaxFragmentAnswer  = 32 << 20
)

// Scatterer is a Reader whose data lies at several nodes, which can be asked to work on
// what they hold, so that results travel and not samples. What is asked and answered is
// for its callers to say. Safe for concurrent use.
type Scatterer interface {
	Reader
	// Elsewhere tells whether some of the data lies at other nodes at present. If not,
	// there is nothing to be won by Scatter.
	Elsewhere() bool
	// Scatter has a request worked on by nodes that hold all data between them, each over
	// shards that no other is asked for, as fresh as a Select with ctx would be, and
	// returns their answers. The work ends with ctx. Any failure is an error: the caller
	// may still Select.
	Scatter(ctx context.Context, request []byte) ([][]byte, error)
}

// Placed is a Reader of a part of the data that knows how series were placed in it.
type Placed interface {
	Reader
	// PairLabel is the label that placement leaves out: series that differ in it alone are
	// all in one part. "": there is none.
	PairLabel() string
}

// FragmentFunc works on a request of Scatter over what r reads, which is a part of the
// data. It must be safe for concurrent use and return soon after ctx has ended. The
// error is ErrOverloaded or ErrUnavailable if another node may be asked instead.
type FragmentFunc func(ctx context.Context, r Reader, request []byte) ([]byte, error)
