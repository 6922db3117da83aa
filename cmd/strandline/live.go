package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/strandline-db/strandline/server/live/client"
	"github.com/strandline-db/strandline/server/promjson"
)

// liveFlags are the flags of the live command.
type liveFlags struct {
	servers               []string
	token, step, backfill string
	samples               bool
}

func newLive() *cobra.Command {
	var f liveFlags
	cmd := &cobra.Command{
		Use:   "live EXPR",
		Short: "Follow a PromQL expression: a live table in a terminal, JSON lines when piped",
		Example: `  strandline live 'sum by (job) (rate(process_cpu_seconds_total[1m]))' --backfill 1m
  strandline live up --step 5s | jq .samples`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runLive(ctx, &f, args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.servers, "server", []string{"http://127.0.0.1:9595"}, "URL of the server, or of several nodes of a cluster; may hold name:password@ (--url is the same)")
	fl.StringVar(&f.token, "token-file", "", "file with a bearer token")
	fl.StringVar(&f.step, "step", "1s", "distance of the steps")
	fl.StringVar(&f.backfill, "backfill", "", "how far back to begin, such as 15m; empty: with the next step")
	fl.BoolVar(&f.samples, "samples", false, "follow the samples of a plain selector as they are stored, in place of steps")
	fl.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "url" {
			name = "server"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

// query reads what is to be subscribed to.
func (f *liveFlags) query(expr string) (client.Query, error) {
	q := client.Query{Expr: expr, Samples: f.samples}
	step, err := model.ParseDuration(f.step)
	if err != nil {
		return q, fmt.Errorf("--step: %w", err)
	}
	if step == 0 {
		return q, errors.New("--step: it must not be 0; the server's default is 1s")
	}
	q.Step = time.Duration(step)
	if f.backfill != "" {
		back, err := model.ParseDuration(f.backfill)
		if err != nil {
			return q, fmt.Errorf("--backfill: %w", err)
		}
		q.Backfill = time.Duration(back)
	}
	return q, nil
}

// runLive shows what w is made for: a table in a terminal, lines otherwise, with what
// befalls the connection on log.
func runLive(ctx context.Context, f *liveFlags, expr string, w, log io.Writer) error {
	q, err := f.query(expr)
	if err != nil {
		return err
	}
	t, ok := w.(*os.File)
	terminal := ok && term.IsTerminal(int(t.Fd()))
	o := &client.Options{}
	if !terminal {
		o.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	if f.token != "" {
		b, err := os.ReadFile(f.token)
		if err != nil {
			return err
		}
		o.Token = strings.TrimSpace(string(b))
	}
	c, err := client.New(f.servers, o)
	if err != nil {
		return err
	}
	defer c.Close()
	sub, err := c.Subscribe(q)
	if err != nil {
		return err
	}
	if terminal {
		err = showTable(ctx, sub, newTable(q), t)
	} else {
		err = printLines(ctx, sub, w)
	}
	if errors.Is(err, context.Canceled) { // by Ctrl-C: that is how it ends
		return nil
	}
	return err
}

// lineSample and line are what is printed for a program to read.
type lineSample struct {
	Labels map[string]string `json:"labels"`
	Value  json.RawMessage   `json:"value"`
}

type line struct {
	Time    string              `json:"time"`
	Rev     uint32              `json:"rev,omitempty"`
	Samples []lineSample        `json:"samples,omitzero"` // empty: the step has no series
	Stale   []map[string]string `json:"stale,omitempty"`
	Dropped *lineDropped        `json:"dropped,omitempty"`
	Error   string              `json:"error,omitempty"`
}

type lineDropped struct {
	Count int64  `json:"count"`
	From  string `json:"from"`
	To    string `json:"to"`
}

func lineTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func lineOf(u *client.Update) line {
	l := line{Time: lineTime(u.Time), Rev: u.Rev, Stale: u.Stale}
	if u.Samples != nil {
		l.Samples = []lineSample{}
	}
	for _, s := range u.Samples {
		l.Samples = append(l.Samples, lineSample{s.Labels, valueOf(&s)})
	}
	if d := u.Dropped; d != nil {
		l.Dropped = &lineDropped{d.Count, lineTime(d.From), lineTime(d.To)}
	}
	if u.Err != nil {
		l.Error = u.Err.Error()
	}
	return l
}

// valueOf returns a value in JSON, as the HTTP API writes it.
func valueOf(s *client.Sample) json.RawMessage {
	if s.Histogram != nil {
		return s.Histogram
	}
	return promjson.AppendFloat(nil, s.Value)
}

func printLines(ctx context.Context, sub *client.Subscription, w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for u, err := range sub.All(ctx) {
		if err != nil {
			return err
		}
		if err := enc.Encode(lineOf(&u)); err != nil {
			return err
		}
	}
	return nil
}
