package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/strandline-db/strandline/server/ingest"
	"github.com/strandline-db/strandline/shard/model"
)

const (
	importBatch = 5000 // samples a request
	importTries = 8    // sendings of a request that is answered 5xx
)

func newImport() *cobra.Command {
	var format string
	var s sender
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Send JSON lines or OpenMetrics text to a running server; - reads standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				var done func()
				if in, done, err = progress(f, cmd.ErrOrStderr()); err != nil {
					return err
				}
				defer done()
			}
			s.ctx = cmd.Context()
			if err := s.run(format, in); err != nil {
				return fmt.Errorf("%s: after %d samples: %w", args[0], s.sent, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d samples stored\n", s.sent)
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl or openmetrics")
	cmd.Flags().StringVar(&s.server, "server", "http://127.0.0.1:9595", "URL of the server; may hold name:password@")
	cmd.Flags().StringVar(&s.token, "token-file", "", "file with a bearer token")
	return cmd
}

// sender collects samples and sends them by remote-write.
type sender struct {
	ctx           context.Context
	server, token string
	request       []byte // a remote-write 1.0 message, as far as it is done
	series        []byte // the series under construction, and its labels
	last          labels.Labels
	sample        []byte // scratch
	pending, sent int
}

func (s *sender) run(format string, in io.Reader) error {
	var err error
	switch format {
	case "jsonl":
		err = ingest.ParseJSONLines(in, s.batch)
	case "openmetrics":
		err = ingest.ParseOpenMetrics(in, time.Now().UnixMilli(), s.batch)
	default:
		return fmt.Errorf("%w: want jsonl or openmetrics, got %q", errImportFormat, format)
	}
	return errors.Join(err, s.flush())
}

// batch collects the samples of a batch.
func (s *sender) batch(b *model.Batch) error {
	for i := range b.Series {
		x := &b.Series[i]
		ls := model.KeyLabels(x.Key)
		for k := x.From; k < x.To; k++ {
			if err := s.add(ls, b.T[k], b.V[k]); err != nil {
				return err
			}
		}
		for k := x.HFrom; k < x.HTo; k++ {
			if err := s.addHistogram(ls, &b.Hist[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin makes ls the series under construction.
func (s *sender) begin(ls labels.Labels) {
	if len(s.series) == 0 || !labels.Equal(s.last, ls) {
		s.endSeries()
		s.series, s.last = model.AppendKey(s.series, ls), ls
	}
}

// addHistogram collects one native histogram.
func (s *sender) addHistogram(ls labels.Labels, h *model.HistogramSample) error {
	var p prompb.Histogram
	if h.H != nil {
		p = prompb.FromIntHistogram(h.T, h.H)
	} else {
		p = prompb.FromFloatHistogram(h.T, h.FH)
	}
	raw, err := p.Marshal()
	if err != nil {
		return err
	}
	s.begin(ls)
	s.series = protowire.AppendTag(s.series, 4, protowire.BytesType)
	s.series = protowire.AppendBytes(s.series, raw)
	return s.count()
}

// count sends when there are enough samples.
func (s *sender) count() error {
	if s.pending++; s.pending < importBatch {
		return nil
	}
	return s.flush()
}

// add collects one sample and sends when there are enough.
func (s *sender) add(ls labels.Labels, at int64, v float64) error {
	s.begin(ls)
	// By hand: the generated code takes -0 for the default and leaves it out.
	s.sample = protowire.AppendTag(s.sample[:0], 1, protowire.Fixed64Type)
	s.sample = protowire.AppendFixed64(s.sample, math.Float64bits(v))
	s.sample = protowire.AppendTag(s.sample, 2, protowire.VarintType)
	s.sample = protowire.AppendVarint(s.sample, uint64(at))
	s.series = protowire.AppendTag(s.series, 2, protowire.BytesType)
	s.series = protowire.AppendBytes(s.series, s.sample)
	return s.count()
}

// endSeries moves the series under construction into the request.
func (s *sender) endSeries() {
	if len(s.series) > 0 {
		s.request = protowire.AppendTag(s.request, 1, protowire.BytesType)
		s.request = protowire.AppendBytes(s.request, s.series)
		s.series = s.series[:0]
	}
}

// flush sends what is collected, again while the server is busy.
func (s *sender) flush() error {
	if s.pending == 0 {
		return nil
	}
	s.endSeries()
	body := snappy.Encode(nil, s.request)
	s.request = s.request[:0]
	for try := 1; ; try++ {
		retry, err := s.post(body)
		if err == nil {
			s.sent += s.pending
			s.pending = 0
			return nil
		}
		if !retry || try == importTries {
			s.pending = 0
			return err
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(time.Duration(try) * 250 * time.Millisecond):
		}
	}
}

func (s *sender) post(body []byte) (retry bool, err error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, strings.TrimSuffix(s.server, "/")+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if err := bearer(req, s.token); err != nil {
		return false, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return true, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return true, err
	}
	if res.StatusCode/100 == 2 {
		return false, nil
	}
	return res.StatusCode/100 == 5, fmt.Errorf("%w: %s: %s", errAnswer, res.Status, bytes.TrimSpace(text))
}
