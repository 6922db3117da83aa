package vfs

import "os"

// extend sets the size of a file that is shorter.
func extend(f *os.File, size int64) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() >= size {
		return err
	}
	return f.Truncate(size)
}
