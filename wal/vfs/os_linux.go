package vfs

import (
	"errors"
	"os"
	"syscall"
)

// syncFile flushes the bytes and, of the metadata, what is needed to read them
// back: the size and the extents, when they changed. That is what fdatasync(2)
// promises, so it is right for preallocated and for growing files alike; only the
// times of the file are left behind.
func syncFile(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return wrapPath("fdatasync", f, err)
		}
	}
}

func preallocate(f *os.File, size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return extend(f, size)
		}
		return wrapPath("fallocate", f, err)
	}
}

func wrapPath(op string, f *os.File, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: f.Name(), Err: err}
}
