package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want a subcommand: ingest, replay, cluster, live or pair")
	}
	switch args[0] {
	case "ingest":
		return ingest(ctx, args[1:])
	case "replay":
		return replay(ctx, args[1:])
	case "cluster":
		return clusterBench(ctx, args[1:])
	case "pair":
		return pairBench(ctx, args[1:])
	case "live":
		return liveBench(ctx, args[1:])
	case "hops":
		return runHops(args[1:])
	}
	return fmt.Errorf("unknown subcommand %q: want ingest, replay, cluster, live or pair", args[0])
}
