package workload

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrFormat reports a body file or a recorded set that does not follow its format.
var ErrFormat = errors.New("workload: bad format")

// recordHeader is lane, samples and length, each a little-endian uint32.
const recordHeader = 12

// maxBody bounds one body, in bytes; no writer here comes near it.
const maxBody = 64 << 20

// Body is one compressed remote-write 1.0 request inside a File.
type Body struct {
	Lane    int   // connection that must send it
	Samples int   // samples inside
	off     int64 // where the compressed bytes start
	size    int   // compressed bytes
}

// Size returns the compressed length in bytes.
func (b Body) Size() int { return b.size }

// Info describes a whole workload.
type Info struct {
	Name    string   `json:"name"`
	Series  int      `json:"series"`
	Samples int64    `json:"samples"`
	Bodies  int      `json:"bodies"`
	Bytes   int64    `json:"bytes"` // compressed
	Start   int64    `json:"start"` // first timestamp, milliseconds
	End     int64    `json:"end"`   // last timestamp, milliseconds
	Names   []string `json:"-"`     // metric names, sorted
}

// Writer appends bodies to a file.
type Writer struct {
	f    *os.File
	w    *bufio.Writer
	info Info
}

// Create truncates or makes the file at path.
func Create(path string) (*Writer, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &Writer{f: f, w: bufio.NewWriterSize(f, 1<<20)}, nil
}

// Add appends one body. body may be reused afterwards.
func (w *Writer) Add(lane, samples int, body []byte) error {
	var h [recordHeader]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(lane))
	binary.LittleEndian.PutUint32(h[4:], uint32(samples))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(body)))
	if _, err := w.w.Write(h[:]); err != nil {
		return err
	}
	w.info.Bodies++
	w.info.Samples += int64(samples)
	w.info.Bytes += int64(len(body))
	_, err := w.w.Write(body)
	return err
}

// Close flushes and closes the file; it does not sync, since the file can be made again.
func (w *Writer) Close() error {
	return errors.Join(w.w.Flush(), w.f.Close())
}

// File is a body file opened for reading.
type File struct {
	f     *os.File
	lanes [][]Body
}

// Open reads the index of the body file at path: headers only.
func Open(path string, lanes int) (_ *File, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	out := &File{f: f, lanes: make([][]Body, lanes)}
	var h [recordHeader]byte
	for off := int64(0); ; {
		_, err := f.ReadAt(h[:], off)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		lane := int(binary.LittleEndian.Uint32(h[0:]))
		size := int(binary.LittleEndian.Uint32(h[8:]))
		if lane >= lanes || size > maxBody {
			return nil, fmt.Errorf("%w: %s at %d: lane %d, %d bytes", ErrFormat, path, off, lane, size)
		}
		off += recordHeader
		out.lanes[lane] = append(out.lanes[lane],
			Body{Lane: lane, Samples: int(binary.LittleEndian.Uint32(h[4:])), off: off, size: size})
		off += int64(size)
	}
}

// Lane returns the bodies of one lane in order of time. The slice must not be changed.
func (f *File) Lane(i int) []Body { return f.lanes[i] }

// Read appends the compressed bytes of b to dst[:0] and returns the result.
func (f *File) Read(b Body, dst []byte) ([]byte, error) {
	if cap(dst) < b.size {
		dst = make([]byte, b.size)
	}
	dst = dst[:b.size]
	_, err := f.f.ReadAt(dst, b.off)
	return dst, err
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
