package live

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// Usage is CPU time at a moment: of a server, of this process, and of the whole machine.
type Usage struct {
	Server, Load, Busy time.Duration
	at                 time.Time
}

// CPUer tells the CPU time of a server so far.
type CPUer interface{ CPU() (time.Duration, error) }

// Used reads the CPU times.
func Used(server CPUer) (Usage, error) {
	u := Usage{at: time.Now()}
	var r syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	u.Load = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	var err1, err2 error
	u.Server, err1 = server.CPU()
	u.Busy, err2 = busy()
	return u, errors.Join(err, err1, err2)
}

// busy sums all but idle and waiting in the first line of /proc/stat, in units of 10 ms.
func busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	var total time.Duration
	for i, f := range bytes.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // name, idle, iowait, guests that are counted already
			continue
		}
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n) * 10 * time.Millisecond
	}
	return total, nil
}

// Since words what was used since before, in cores.
func (u Usage) Since(before Usage) string {
	wall := u.at.Sub(before.at).Seconds()
	server, load, all := (u.Server-before.Server).Seconds()/wall, (u.Load-before.Load).Seconds()/wall, (u.Busy-before.Busy).Seconds()/wall
	return fmt.Sprintf("server %.2f, load %.2f, others %.2f of %d cores", server, load, max(0, all-server-load), runtime.NumCPU())
}
