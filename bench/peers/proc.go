package peers

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// ErrProc reports a file of /proc that could not be understood.
var ErrProc = errors.New("peers: unexpected /proc contents")

// clockTick is USER_HZ, the unit of times in /proc/PID/stat. It is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// CPU returns user plus system time of a process and its threads, with a resolution of 10 ms.
func CPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold spaces; count from its end.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("%w: stat of %d", ErrProc, pid)
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("%w: stat of %d: %w", ErrProc, pid, err)
	}
	return time.Duration(user+system) * clockTick, nil
}

// Anon returns the anonymous resident memory of a process, in bytes.
func Anon(pid int) (int64, error) { return memory(pid, "RssAnon:") }

// PeakRSS returns the highest resident memory that a process has had, in bytes.
func PeakRSS(pid int) (int64, error) { return memory(pid, "VmHWM:") }

// memory returns a figure of /proc/PID/status, in bytes.
func memory(pid int, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			fields := bytes.Fields(rest)
			if len(fields) != 2 {
				break
			}
			kb, err := strconv.ParseInt(string(fields[0]), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%w: no %s for %d", ErrProc, name, pid)
}

// allocated returns the disk space of one file, in bytes: st_blocks is in units of 512 whatever the file system.
func allocated(path string) (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}
