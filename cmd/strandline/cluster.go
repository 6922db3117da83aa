package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/cluster"
)

func newCluster() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Look at a cluster and change it, and make certificates for one"}
	cmd.AddCommand(newClusterStatus(), newClusterHash(), newCerts(), newRecover())
	cmd.AddCommand(newClusterChanges()...)
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
	f.clusterFlags(cmd)
	return cmd
}

func (f *queryFlags) clusterFlags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.server, "server", "http://127.0.0.1:9595", "URL of any node; may hold name:password@")
	fl.StringVar(&f.token, "token-file", "", "file with a bearer token")
	fl.StringVar(&f.format, "format", "table", "table or json")
}

func newClusterStatus() *cobra.Command {
	cmd := clusterCommand("status", "Show nodes, groups, leaders and how far each has come, as one node sees them", "/api/v1/cluster/status", writeStatus)
	cmd.Long = cmd.Short + `.
Behind each replica stands by how many log entries it is behind; a star marks one without
a vote, a question mark one whose node does not answer.`
	return cmd
}

// ages is how old no data is.
const ages = 100 * 365 * 24 * time.Hour

func writeStatus(w io.Writer, data json.RawMessage) error {
	var s cluster.Status
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	age := fmt.Sprintf("its data may be %.3f s old", s.Staleness)
	if s.Staleness > ages.Seconds() {
		age = "it has heard of no leader since its start, so that nobody knows how old its data is"
	}
	fmt.Fprintf(w, "cluster %s as node %s sees it; %s\n\n", s.Cluster, s.Node, age)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tADDRESS\tHTTP\tSTATE\tANSWERS\tREPLICAS\tLEADS\tBYTES")
	for _, n := range s.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%v\t%d\t%d\t%d\n", n.Name, n.Address, n.HTTP, n.State, n.Answers, n.Replicas, n.Leads, n.Bytes)
	}
	fmt.Fprintln(t, "\t\t\t\t\t\t\t\nGROUP\tLEADER\tTERM\tCOMMITTED\tFLUSHED\tREPLICAS (LAG)\t\t")
	for i := range s.Groups {
		g := &s.Groups[i]
		leader, _, _ := strings.Cut(g.Leader, "@")
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t\t\n", g.Group, leader, g.Term, g.Commit, g.Flushed, membersOf(g))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if n.Waits != "" {
			fmt.Fprintf(w, "\nnode %s is starting; %s\n", n.Name, n.Waits)
		}
		if n.State == "draining" && n.Replicas > 0 && !s.Plan.Open() {
			fmt.Fprintf(w, "\nnode %s is to be drained, and no plan is under way: `strandline cluster rebalance` goes on with it, `strandline cluster add %[1]s` keeps the node\n", n.Name)
		}
	}
	if s.Plan == nil {
		return nil
	}
	fmt.Fprintf(w, "\nplan %s (%s) of %s: %s\n", s.Plan.ID, s.Plan.Why, s.Plan.Made.Format(time.RFC3339), s.Plan.State)
	for i := range s.Moves {
		m := &s.Moves[i]
		fmt.Fprintf(w, "  %s: %s", m, m.Phase)
		if m.Hash != "" {
			fmt.Fprintf(w, ", both had hash %s at entry %d", m.Hash, m.Index)
		}
		if m.Error != "" {
			fmt.Fprintf(w, " (%s)", m.Error)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// membersOf lists a group's replicas: a star marks one without a vote, a question mark
// one whose node does not answer.
func membersOf(g *cluster.GroupStatus) string {
	var out []string
	for _, m := range g.Members {
		text := m.Address
		if !m.Voter {
			text += "*"
		}
		if m.Answers {
			text += fmt.Sprintf("(%d)", m.Lag)
		} else {
			text += "(?)"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
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
