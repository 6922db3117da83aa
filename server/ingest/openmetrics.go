package ingest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/strandline-db/strandline/shard/model"
)

// openMetricsEnd is the last line of a complete exposition.
const openMetricsEnd = "# EOF"

// ParseOpenMetrics reads OpenMetrics text of any length in pieces of whole lines,
// with memory for a piece, and hands the samples to emit batch by batch. A batch
// is valid until emit returns. Samples without a timestamp get defaultTS
// (milliseconds). Series called _created stay series of their own.
//
// It fails with ErrMalformed on bad text or when the closing "# EOF" is missing,
// which tells a file cut short; what came before has been emitted by then. An
// error of emit ends it and is returned.
func ParseOpenMetrics(r io.Reader, defaultTS int64, emit func(*model.Batch) error) error {
	p := openMetrics{defaultTS: defaultTS, out: newTextBatch(emit), symbols: labels.NewSymbolTable(), families: map[string]*model.Metadata{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	var piece []byte
	ended, no := false, 0
	for lines.Scan() {
		no++
		line := lines.Bytes()
		if ended {
			return fmt.Errorf("%w: line %d: text after %q", ErrMalformed, no, openMetricsEnd)
		}
		if ended = string(line) == openMetricsEnd; ended {
			continue
		}
		piece = append(append(piece, line...), '\n')
		if len(piece) >= batchBytes {
			if err := p.piece(piece); err != nil {
				return fmt.Errorf("before line %d: %w", no+1, err)
			}
			piece = piece[:0]
		}
	}
	if err := scanError(lines.Err()); err != nil {
		return err
	}
	if err := p.piece(piece); err != nil {
		return fmt.Errorf("before line %d: %w", no+1, err)
	}
	if err := p.out.flush(); err != nil {
		return err
	}
	if !ended {
		return fmt.Errorf("%w: %q is missing after line %d", ErrMalformed, openMetricsEnd, no)
	}
	return nil
}

func scanError(err error) error {
	if errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("%w: a line is longer than %d bytes", ErrTooLarge, maxLine)
	}
	return err
}

// openMetrics is the state between pieces of one text.
type openMetrics struct {
	defaultTS int64
	out       *textBatch
	symbols   *labels.SymbolTable
	families  map[string]*model.Metadata
}

// piece parses whole lines, to which it adds the end that the parser wants.
func (p *openMetrics) piece(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	parser := textparse.NewOpenMetricsParser(append(bytes.Clone(text), openMetricsEnd+"\n"...), p.symbols)
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		switch entry {
		case textparse.EntrySeries:
			err = p.series(parser)
		case textparse.EntryType, textparse.EntryHelp, textparse.EntryUnit:
			p.describe(parser, entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *openMetrics) series(parser textparse.Parser) error {
	_, ts, v := parser.Series()
	t := p.defaultTS
	if ts != nil {
		t = *ts
	}
	var ls labels.Labels
	parser.Labels(&ls)
	p.out.begin(ls)
	d := p.out.d
	d.add(t, math.Float64bits(v), 0)
	var ex exemplar.Exemplar
	for parser.Exemplar(&ex) {
		e := model.Exemplar{T: t, Value: ex.Value, Labels: model.AppendKey(nil, ex.Labels)}
		if ex.HasTs {
			e.T = ex.Ts
		}
		d.batch.Exemplars = append(d.batch.Exemplars, e)
		ex = exemplar.Exemplar{}
	}
	return p.out.end()
}

// describe adds to what is known of a family, and passes it on as far as known.
func (p *openMetrics) describe(parser textparse.Parser, entry textparse.Entry) {
	var name, text []byte
	typ := ""
	switch entry {
	case textparse.EntryType:
		n, t := parser.Type()
		name, typ = n, string(t)
	case textparse.EntryHelp:
		name, text = parser.Help()
	default:
		name, text = parser.Unit()
	}
	m := p.families[string(name)]
	if m == nil {
		m = &model.Metadata{Metric: string(name), Type: metadataType(0)}
		p.families[m.Metric] = m
	}
	switch entry {
	case textparse.EntryType:
		m.Type = typ
	case textparse.EntryHelp:
		m.Help = string(text)
	default:
		m.Unit = string(text)
	}
	md := &p.out.d.batch.Metadata
	if n := len(*md); n > 0 && (*md)[n-1].Metric == m.Metric {
		(*md)[n-1] = *m
		return
	}
	*md = append(*md, *m)
}
