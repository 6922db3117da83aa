package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/strandline-db/strandline/bench/workload"
)

// report prints the rows as a table with strandline's ratios, and keeps them if save names a result.
func report(command, save string, info workload.Info, rows []row) error {
	text := table(command, info, rows)
	fmt.Print(text)
	if save == "" {
		return nil
	}
	dir := filepath.Join("bench", "results")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(map[string]any{
		"command": command, "cores": runtime.NumCPU(), "date": time.Now().UTC().Format(time.DateOnly), "workload": info, "rows": rows,
	}, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, save+".md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, save+".json"), append(data, '\n'), 0o644))
}

func table(command string, info workload.Info, rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Ingest: %s\n\n`%s`, %d cores, %s.\n", info.Name, strings.TrimSpace(command), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "%d series, %d samples, %d requests, %d connections; %.2f compressed bytes a sample on the wire.\n\n",
		info.Series, info.Samples, info.Bodies, lanes, float64(info.Bytes)/float64(info.Samples))
	b.WriteString("| server | samples/s | CPU s/M, end of ingest | settled | with stop | peak anon MiB | disk B/sample, running | stopped | loader CPU s/M | retries | visible / sent |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %.0f | %.3f | %.3f | %.3f | %.1f | %.3f | %.3f | %.3f | %d | %d / %d |\n", r.Server, r.SamplesPerSec, r.CPUIngest,
			r.CPUSettled, r.CPUStop, float64(r.PeakAnon)/(1<<20), r.BytesRunning, r.BytesStopped, r.LoaderCPU, r.Retries, r.SamplesVisible, r.SamplesSent)
	}
	if len(rows) > 1 && rows[0].Server == "strandline" {
		s := rows[0]
		b.WriteString("\n| strandline to | samples/s | CPU, end of ingest | settled | with stop | peak anon | disk, stopped |\n|---|---|---|---|---|---|---|\n")
		for _, r := range rows[1:] {
			fmt.Fprintf(&b, "| %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", r.Server, s.SamplesPerSec/r.SamplesPerSec, s.CPUIngest/r.CPUIngest,
				s.CPUSettled/r.CPUSettled, s.CPUStop/r.CPUStop, float64(s.PeakAnon)/float64(r.PeakAnon), s.BytesStopped/r.BytesStopped)
		}
	}
	return b.String()
}
