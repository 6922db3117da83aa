package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker (see the Makefile).
var version = "dev"

func main() {
	if err := newRoot().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "strandline:", err)
		os.Exit(1)
	}
}

// newRoot returns the command tree; cobra adds completion by itself.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "strandline",
		Short:         "A time-series database for metrics",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newServe(), newQuery(), newLive(), newImport(), newExport(), newCheck(), newInspect(), newBackup(), newRestore(), newCluster(), newVersion())
	return root
}
