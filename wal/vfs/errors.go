package vfs

import "errors"

// ErrLocked says that another process or opener holds the lock.
var ErrLocked = errors.New("vfs: locked by another opener")
