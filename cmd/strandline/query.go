package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
)

// queryFlags are the flags of the query command.
type queryFlags struct {
	server, token, format, at, over, step string
}

func newQuery() *cobra.Command {
	var f queryFlags
	cmd := &cobra.Command{
		Use:   "query EXPR",
		Short: "Ask a server a PromQL expression",
		Example: `  strandline query 'sum(up)'
  strandline query 'rate(process_cpu_seconds_total[5m])' --range 1h --step 1m --format csv`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runQuery(cmd.Context(), &f, args[0], cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.server, "server", "http://127.0.0.1:9595", "URL of the server; may hold name:password@")
	fl.StringVar(&f.token, "token-file", "", "file with a bearer token")
	fl.StringVar(&f.format, "format", "table", "table, json (the data of the answer) or csv")
	fl.StringVar(&f.at, "time", "", "when to evaluate, or the end of the range: RFC 3339 or Unix seconds; empty: now")
	fl.StringVar(&f.over, "range", "", "evaluate over this duration up to --time, such as 1h")
	fl.StringVar(&f.step, "step", "15s", "distance of the steps of a range")
	return cmd
}

func runQuery(ctx context.Context, f *queryFlags, expr string, w io.Writer) error {
	write, ok := map[string]func(io.Writer, *answer) error{"table": writeTable, "json": writeJSON, "csv": writeCSV}[f.format]
	if !ok {
		return fmt.Errorf("%w, got %q", errFormat, f.format)
	}
	path, form, err := f.form(expr, time.Now())
	if err != nil {
		return err
	}
	a, err := f.ask(ctx, path, form)
	if err != nil {
		return err
	}
	for _, text := range append(a.Warnings, a.Infos...) {
		fmt.Fprintln(os.Stderr, "note:", text)
	}
	return write(w, a)
}

// form returns the path and the parameters of the request.
func (f *queryFlags) form(expr string, now time.Time) (string, url.Values, error) {
	end := now
	if f.at != "" {
		var err error
		if end, err = parseTime(f.at); err != nil {
			return "", nil, fmt.Errorf("--time: %w", err)
		}
	}
	form := url.Values{"query": {expr}}
	if f.over == "" {
		form.Set("time", unix(end))
		return "/api/v1/query", form, nil
	}
	over, err := model.ParseDuration(f.over)
	if err != nil {
		return "", nil, fmt.Errorf("--range: %w", err)
	}
	step, err := model.ParseDuration(f.step)
	if err != nil {
		return "", nil, fmt.Errorf("--step: %w", err)
	}
	form.Set("start", unix(end.Add(-time.Duration(over))))
	form.Set("end", unix(end))
	form.Set("step", strconv.FormatFloat(time.Duration(step).Seconds(), 'f', -1, 64))
	return "/api/v1/query_range", form, nil
}

func parseTime(s string) (time.Time, error) {
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		return time.UnixMilli(int64(sec * 1000)), nil
	}
	return time.Parse(time.RFC3339Nano, s)
}

func unix(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// answer is the envelope of the HTTP API.
type answer struct {
	Status    string          `json:"status"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
	Data      json.RawMessage `json:"data"`
}

func (f *queryFlags) ask(ctx context.Context, path string, form url.Values) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(f.server, "/")+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if err := bearer(req, f.token); err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var a answer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errAnswer, res.Status, err)
	}
	if a.Status != "success" {
		return nil, fmt.Errorf("%w: %s: %s: %s", errAnswer, res.Status, a.ErrorType, a.Error)
	}
	return &a, nil
}

// bearer adds the token in the file, if there is one, to the request.
func bearer(req *http.Request, file string) error {
	if file == "" {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(b)))
	return nil
}
