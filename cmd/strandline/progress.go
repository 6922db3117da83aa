package main

import (
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress returns a reader of f that draws a bar on w, if w is a terminal, and a
// function that ends the drawing.
func progress(f *os.File, w io.Writer) (io.Reader, func(), error) {
	terminal, ok := w.(*os.File)
	if !ok {
		return f, func() {}, nil
	}
	if st, err := terminal.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return f, func() {}, nil
	}
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	p := mpb.New(mpb.WithOutput(terminal), mpb.WithWidth(50))
	bar := p.AddBar(st.Size(),
		mpb.PrependDecorators(decor.CountersKibiByte("% .1f / % .1f")),
		mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
	r, err := bar.ProxyReader(f)
	if err != nil {
		return nil, nil, err
	}
	return r, func() {
		bar.Abort(false) // no-op once the file has been read
		p.Wait()
	}, nil
}
