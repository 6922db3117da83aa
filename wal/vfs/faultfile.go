package vfs

import "errors"

// faultFile is a file of a FaultFS.
type faultFile struct {
	File
	fs   *FaultFS
	name string
}

// ReadAt implements File.
func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.check(OpRead, f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

// WriteAt implements File.
func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.fs.check(OpWrite, f.name)
	if err == nil {
		return f.File.WriteAt(p, off)
	}
	var short *ShortWrite
	if !errors.As(err, &short) {
		return 0, err
	}
	n, werr := f.File.WriteAt(p[:min(max(short.Bytes, 0), len(p))], off)
	return n, errors.Join(err, werr)
}

// Sync implements File.
func (f *faultFile) Sync() error {
	if err := f.fs.check(OpSync, f.name); err != nil {
		if m, ok := f.File.(*memFile); ok {
			m.failSync()
		}
		return err
	}
	return f.File.Sync()
}

// Truncate implements File.
func (f *faultFile) Truncate(size int64) error {
	if err := f.fs.check(OpTruncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Preallocate implements File.
func (f *faultFile) Preallocate(size int64) error {
	if err := f.fs.check(OpPreallocate, f.name); err != nil {
		return err
	}
	return f.File.Preallocate(size)
}
