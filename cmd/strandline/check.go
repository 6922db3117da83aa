package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/server"
	"github.com/strandline-db/strandline/server/config"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "Verify a config file, rule files or a data folder"}
	cmd.AddCommand(newCheckConfig(), newCheckData(), newCheckRules())
	return cmd
}

func newCheckConfig() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "config FILE",
		Short: "Verify a config file; every fault is named with its line",
		Long: `Verify a config file, and the rule files and certificates that it names. Every fault for which serve
would not start is told, but for those of the data folder. Give the flags that serve is given.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file = args[0]
			c, err := settingsOf(cmd, &file)()
			if err != nil {
				return err
			}
			if err := errors.Join(refusals(c)...); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", file)
			return err
		},
	}
	addSettingFlags(cmd)
	return cmd
}

// refusals are why serve would not start with settings that are sound in themselves. It
// opens nothing that serve opens.
func refusals(c *config.Config) (errs []error) {
	if _, err := loadRules(c); err != nil {
		errs = append(errs, err)
	}
	o := &server.Options{Insecure: c.Insecure}
	var err error
	if o.Auth, err = authOf(c); err != nil {
		errs = append(errs, err)
	}
	if c.TLSCert != "" {
		cert, err := server.LoadCertificate(c.TLSCert, c.TLSKey, nil, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("tls-cert and tls-key: %w", err))
		}
		o.TLS = cert.TLS()
	}
	if err := permits(o, c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen: %w", err))
	}
	if c.AuditLog != "" {
		if _, err := os.Stat(filepath.Dir(c.AuditLog)); err != nil {
			errs = append(errs, fmt.Errorf("audit-log: %w", err))
		}
	}
	if c.ClusterNode != "" {
		if _, err := clusterOptions(c); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// permits tells whether a server of these options would listen on an address.
func permits(o *server.Options, listen string) error {
	addr, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return err
	}
	s, err := server.New(o)
	if err != nil {
		return err
	}
	return s.Permit(addr)
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
