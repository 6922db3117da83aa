//go:build invariants

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/strandline-db/strandline/engine"
)

// armFailpoint, in builds for tests, lets STRANDLINE_FAILPOINT=name:n kill this process
// when it comes to a failpoint for the nth time. The log's segments are small then, so
// that those at their ends come soon.
func armFailpoint(o *engine.Options) {
	name, count, _ := strings.Cut(os.Getenv("STRANDLINE_FAILPOINT"), ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return
	}
	var hits atomic.Int64
	o.SegmentBytes = 128 << 10
	o.Failpoint = func(at string) {
		if at == name && hits.Add(1) == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // can't fail
			select {}
		}
	}
}
