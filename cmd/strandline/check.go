package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/server/config"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "Verify a config file, rule files or a data folder"}
	cmd.AddCommand(newCheckConfig(), newCheckData(), newCheckRules())
	return cmd
}

func newCheckConfig() *cobra.Command {
	return &cobra.Command{
		Use:   "config FILE",
		Short: "Verify a config file; every fault is named with its line",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			c, err := config.Load(data, nil)
			if err == nil {
				_, err = loadRules(c)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
			return err
		},
	}
}

func newCheckData() *cobra.Command {
	var o engine.Options
	cmd := &cobra.Command{
		Use:   "data DIR",
		Short: "Verify every checksum and cross-reference of a data folder; the server must be stopped",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			faults := 0
			err := engine.Check(args[0], &o, func(path string, err error) {
				faults++
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %v\n", path, err)
			})
			if err != nil {
				return err
			}
			if faults > 0 {
				return fmt.Errorf("%s: %w: %d", args[0], errDamaged, faults)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
			return err
		},
	}
	cmd.Flags().StringVar(&o.WarmDir, "warm-dir", "", "folder of the warm tier, if it is not in DIR")
	cmd.Flags().StringVar(&o.ColdDir, "cold-dir", "", "folder of the cold tier, if it is not in DIR")
	return cmd
}
