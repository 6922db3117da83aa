//go:build unix

package main

import "syscall"

// maxOpenFiles returns how many files this process may have open; 0: it can't be told. The
// runtime has raised it as far as the system lets it.
func maxOpenFiles() uint64 {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return uint64(l.Cur)
}
