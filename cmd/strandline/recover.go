package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/engine"
)

func newRecover() *cobra.Command {
	var dir string
	var yes bool
	var o engine.Options
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Make a surviving node's folder a new cluster, after the majority was lost for good",
		Long: `Make a surviving node's folder a new cluster, after the majority was lost for good.
The node must be stopped. Take the folder that goes furthest. What the old cluster had
acknowledged and this folder lacks is lost. Start the node again as before, and the
others on empty folders. A node that stands alone and has lost its log, or a part of it,
goes on by this as well.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			o.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			err := cluster.Recover(cmd.Context(), dir, o, func(s *cluster.Survivor) bool {
				writeSurvivor(out, s)
				return yes || askYes(cmd.InOrStdin(), out)
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "%s is the folder of a new cluster now.\n", dir)
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&dir, "data", "./data", "folder of the node's data")
	fl.BoolVar(&yes, "yes", false, "do not ask")
	fl.StringVar(&o.WarmDir, "warm-dir", "", "folder of the warm tier, if it is not in the data folder")
	fl.StringVar(&o.ColdDir, "cold-dir", "", "folder of the cold tier, if it is not in the data folder")
	return cmd
}

// askYes asks and reads one line.
func askYes(in io.Reader, out io.Writer) bool {
	fmt.Fprint(out, "What other nodes alone have will be lost. Go on? Type yes: ")
	line, err := bufio.NewReader(in).ReadString('\n')
	return err == nil && strings.TrimSpace(line) == "yes"
}

func writeSurvivor(w io.Writer, s *cluster.Survivor) {
	fmt.Fprintf(w, "node %s of cluster %s\n", s.Node, s.Cluster)
	if s.Doubt != "" {
		fmt.Fprintf(w, "The end of its log may be missing: %s.\n", s.Doubt)
	}
	fmt.Fprintln(w, "Entries behind LAST that the old cluster acknowledged are lost.")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GROUP\tFLUSHED\tLAST\tTERM\tHERE\tMEMBERS")
	for _, g := range s.Groups {
		here := "whole"
		switch {
		case !g.Held:
			here = "nothing: all of it is lost"
		case !g.Whole:
			here = "perhaps not all: it has no vote, or was being filled"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\n", g.Group, g.Flushed, g.Last, g.Term, here, strings.Join(g.Members, " "))
	}
	_ = t.Flush() // as little as the lines above
}
