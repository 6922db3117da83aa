package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/server/config"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "Verify a config file"}
	cmd.AddCommand(&cobra.Command{
		Use:   "config FILE",
		Short: "Verify a config file; every fault is named with its line",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if _, err := config.Load(data, nil); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
			return err
		},
	})
	return cmd
}
