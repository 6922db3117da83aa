package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/cluster"
)

func newCluster() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Look at a cluster, and make certificates for one"}
	cmd.AddCommand(newClusterStatus(), newClusterHash(), newCerts())
	return cmd
}

// clusterCommand is a command that asks one node for something about the cluster.
func clusterCommand(use, short, path string, write func(io.Writer, json.RawMessage) error) *cobra.Command {
	var f queryFlags
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := f.ask(cmd.Context(), path, nil)
			if err != nil {
				return err
			}
			if f.format == "json" {
				return writeJSON(cmd.OutOrStdout(), a)
			}
			if f.format != "table" {
				return fmt.Errorf("%w, got %q", errFormat, f.format)
			}
			return write(cmd.OutOrStdout(), a.Data)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.server, "server", "http://127.0.0.1:9595", "URL of any node; may hold name:password@")
	fl.StringVar(&f.token, "token-file", "", "file with a bearer token")
	fl.StringVar(&f.format, "format", "table", "table or json")
	return cmd
}

func newClusterStatus() *cobra.Command {
	return clusterCommand("status", "Show nodes, groups, leaders and how far each has come, as one node sees them", "/api/v1/cluster/status", writeStatus)
}

func writeStatus(w io.Writer, data json.RawMessage) error {
	var s cluster.Status
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	fmt.Fprintf(w, "cluster %s as node %s sees it; its data may be %.3f s old\n\n", s.Cluster, s.Node, s.Staleness)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tADDRESS\tCONNECTED")
	for _, p := range s.Peers {
		fmt.Fprintf(t, "%s\t%s\t%v\n", p.Name, p.Address, p.Connected)
	}
	fmt.Fprintln(t, "\t\t\nGROUP\tLEADER\tTERM\tCOMMITTED\tAPPLIED\tFLUSHED")
	for _, g := range s.Groups {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\n", g.Group, g.Leader, g.Term, g.Commit, g.Applied, g.Flushed)
	}
	return t.Flush()
}

func newClusterHash() *cobra.Command {
	cmd := clusterCommand("hash", "Read all that a node holds and show a hash of each shard, which is equal on all replicas at the same index",
		"/api/v1/admin/cluster/hash", writeHashes)
	cmd.Long = cmd.Short + ".\nIt reads every block: give it time, and not all nodes at once."
	return cmd
}

func writeHashes(w io.Writer, data json.RawMessage) error {
	var hs []cluster.Hash
	if err := json.Unmarshal(data, &hs); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARD\tINDEX\tHASH")
	for _, h := range hs {
		fmt.Fprintf(t, "%d\t%d\t%s\n", h.Shard, h.Index, h.Hash)
	}
	return t.Flush()
}
