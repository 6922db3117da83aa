package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/strandline-db/strandline/wal/vfs"
)

// A log with Options.PutAside goes on in front of damage that is no torn tail. What is
// damaged, and all behind it, is put aside under another name and DOUBT says so; the owner
// must get what was there from elsewhere, before it acts on what is left.

// asideSuffix marks segments that were put aside, or a copy of one of which a part stays.
const asideSuffix = ".damaged"

// Aside tells whether parts of the log lie aside. It lasts until DropAside, over restarts.
func (l *Log) Aside() (bool, error) {
	names, err := l.fs.List(l.dir)
	return slices.ContainsFunc(names, isAside), err
}

func isAside(name string) bool { return strings.HasSuffix(name, segmentSuffix+asideSuffix) }

// DropAside deletes what lies aside.
func (l *Log) DropAside() error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if isAside(name) {
			if err := l.fs.Remove(path.Join(l.dir, name)); err != nil {
				return err
			}
		}
	}
	return l.fs.SyncDir(l.dir)
}

// recoverAround is recover for a log with PutAside. That the newest segment is missing is found
// before damage in those that are there.
func (l *Log) recoverAround() error {
	err := l.recover()
	for range 2 {
		var damage *CorruptionError
		if !l.opts.PutAside || !errors.As(err, &damage) || errors.Is(err, errVersion) {
			break
		}
		l.opts.Logger.Error("log: damage; what lies behind it is put aside, and acknowledged entries may be missing", "err", err)
		if l.f != nil { // of the last segment, while segments before the first are missing
			if err := l.f.Close(); err != nil {
				return err
			}
			l.f = nil
		}
		if err := l.putAside(damage); err != nil {
			return err
		}
		l.st, l.number, l.oldest = newState(), 0, 0
		l.healing = true
		l.countDamage()
		err = l.recover()
	}
	return err
}

// putAside puts all from the damage on aside. The doubt is durable first, and segments go
// from the last one back: after a crash in its midst there is a doubt, and the same damage or none.
func (l *Log) putAside(damage *CorruptionError) error {
	if err := l.setDoubt(fmt.Sprintf("the log was damaged at byte %d of %s (%v); all from there on lies aside", damage.Offset, path.Base(damage.Path), damage.Err)); err != nil {
		return err
	}
	hex, _ := strings.CutSuffix(path.Base(damage.Path), segmentSuffix)
	first, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return damage
	}
	names, err := l.fs.List(l.dir)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, segmentSuffix) })
	if len(names) > 0 && names[0] > segmentName(first) {
		return nil // segments are missing in front: recover goes on without their entries
	}
	newest := first
	if damage.Offset < segmentHeader {
		newest--
	}
	if err := l.noteNewest(newest); err != nil { // so that a crash in the midst leaves no second damage
		return err
	}
	slices.Reverse(names)
	for _, name := range names {
		if name < segmentName(first) || name == segmentName(first) && damage.Offset >= segmentHeader {
			break
		}
		l.opts.Failpoint("wal-put-aside")
		if err := l.fs.Rename(path.Join(l.dir, name), path.Join(l.dir, name+asideSuffix)); err != nil {
			return err
		}
		if err := l.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	if damage.Offset < segmentHeader {
		return nil
	}
	return l.cutCopied(damage.Path, damage.Offset)
}

// cutCopied cuts a segment at off, having made a copy of it.
func (l *Log) cutCopied(name string, off int64) (err error) {
	f, err := l.fs.OpenReadWrite(name)
	if errors.Is(err, fs.ErrNotExist) { // a segment that is missing itself
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := vfs.ReadFile(l.fs, name)
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(l.fs, name+asideSuffix, b); err != nil {
		return err
	}
	if err := f.Truncate(off); err != nil {
		return err
	}
	return f.Sync()
}

// heal makes streams begin behind what is missing in front of them: it lay in segments that
// are gone, which an entry that is gone too said was dead, or it was lost with them.
func (l *Log) heal() error {
	buf := make([]byte, batchHeader)
	for _, id := range l.st.ids() {
		switch s := l.st.streams[id]; {
		case len(s.at) == 0 && s.base < s.last:
			buf = appendControl(buf, kindReset, id, s.last)
		case len(s.at) > 0 && s.at[0].index > s.base+1:
			buf = appendControl(buf, kindFront, id, s.at[0].index-1)
		}
	}
	if len(buf) == batchHeader {
		return nil
	}
	if l.off+int64(len(buf)) > l.opts.SegmentSize {
		if err := l.nextSegment(); err != nil {
			return err
		}
	}
	return l.put(buf)
}
