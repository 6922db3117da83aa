package cluster

import (
	"reflect"

	"github.com/hashicorp/raft"
)

// until has a future of Raft end, with raft.ErrRaftShutdown, when the replica's life here
// does. What Raft holds when it is shut down it never answers: a future waits for that
// beside its answer, but Raft sets its channel in a few kinds only (deferError in its
// future.go) and leaves no other way to it.
func until[F raft.Future](g *group, f F) F {
	v := reflect.ValueOf(f)
	if v.Kind() != reflect.Pointer { // refused at once
		return f
	}
	v.Elem().FieldByName("ShutdownCh").Set(reflect.ValueOf(g.ended))
	return f
}
