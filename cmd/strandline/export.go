package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/server/ingest"
	"github.com/strandline-db/strandline/shard/model"
)

// exportFlags are the flags of the export command.
type exportFlags struct {
	data, match, start, end string
	engine                  engine.Options
}

func newExport() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the samples of a data folder as JSON lines; the server must be stopped",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runExport(cmd.Context(), &f, cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "./data", "folder of the data")
	fl.StringVar(&f.match, "match", `{__name__!=""}`, "series selector")
	fl.StringVar(&f.start, "start", "", "first time: RFC 3339 or Unix seconds; empty: the beginning")
	fl.StringVar(&f.end, "end", "", "last time; empty: the end")
	fl.StringVar(&f.engine.WarmDir, "warm-dir", "", "folder of the warm tier, if it is not in the data folder")
	fl.StringVar(&f.engine.ColdDir, "cold-dir", "", "folder of the cold tier, if it is not in the data folder")
	return cmd
}

func runExport(ctx context.Context, f *exportFlags, w io.Writer) (err error) {
	req := &model.SelectRequest{MinT: math.MinInt64 / 4, MaxT: math.MaxInt64 / 4}
	if req.Matchers, err = parser.NewParser(parser.Options{}).ParseMetricSelector(f.match); err != nil {
		return fmt.Errorf("--match: %w", err)
	}
	if err := setTime(&req.MinT, f.start); err != nil {
		return fmt.Errorf("--start: %w", err)
	}
	if err := setTime(&req.MaxT, f.end); err != nil {
		return fmt.Errorf("--end: %w", err)
	}
	f.engine.Retention = -1 // a tool that reads drops nothing
	db, err := engine.Open(f.data, &f.engine)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	sel, err := db.Select(ctx, req)
	if err != nil {
		return err
	}
	defer sel.Close()
	out := bufio.NewWriter(w)
	if err := writeLines(out, sel); err != nil {
		return err
	}
	return out.Flush()
}

// writeLines writes a line a series.
func writeLines(w io.Writer, sel *model.Selection) error {
	var c model.Columns
	for _, s := range sel.Series {
		c.Reset()
		if err := s.Read(&c); err != nil {
			return err
		}
		if err := ingest.WriteJSONLines(w, s.Labels(), &c); err != nil {
			return err
		}
	}
	return nil
}

// setTime puts the time in text, if there is one, into at, in milliseconds.
func setTime(at *int64, text string) error {
	if text == "" {
		return nil
	}
	t, err := parseTime(text)
	*at = t.UnixMilli()
	return err
}
