package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/cluster"
)

var errNotConfirmed = errors.New("not confirmed; --yes answers for you")

const adminPath = "/api/v1/admin/cluster/"

// changeCommand is a command that changes the cluster through any node.
type changeCommand struct {
	queryFlags
	yes, force bool
}

func newClusterChanges() []*cobra.Command {
	return []*cobra.Command{
		changeOf("plan", 0, "Show the moves that would bring every shard to where it should lie", func(c *changeCommand, cmd *cobra.Command, _ []string) error {
			_, err := c.plan(cmd, nil)
			return err
		}),
		changeOf("rebalance", 0, "Show these moves and, once confirmed, carry them out", func(c *changeCommand, cmd *cobra.Command, _ []string) error {
			return c.planned(cmd, "rebalance", nil, nil)
		}),
		changeOf("add NODE", 1, "Give a node that has entered, or was to be drained, its part of the shards", func(c *changeCommand, cmd *cobra.Command, a []string) error {
			return c.planned(cmd, "add", url.Values{"node": a}, url.Values{"node": a})
		}),
		changeOf("drain NODE", 1, "Move everything off a node", func(c *changeCommand, cmd *cobra.Command, a []string) error {
			return c.planned(cmd, "drain", url.Values{"node": a, "drained": {"true"}}, url.Values{"node": a})
		}),
		changeOf("remove NODE", 1, "Take a drained node out of the cluster for good; with --force a dead one", removeNode),
		changeOf("move SHARD FROM TO", 3, "Move one replica of a shard from a node to another", func(c *changeCommand, cmd *cobra.Command, a []string) error {
			return c.post(cmd, "move", url.Values{"shard": a[:1], "from": a[1:2], "to": a[2:]})
		}),
		changeOf("transfer-leader SHARD NODE", 2, `Make a node lead a shard; "-" leaves it to the cluster again`, func(c *changeCommand, cmd *cobra.Command, a []string) error {
			return c.post(cmd, "transfer-leader", url.Values{"shard": a[:1], "node": {strings.TrimPrefix(a[1], "-")}})
		}),
		changeOf("pause", 0, "Pause the plan under way after the step that it is in", simpleChange("pause")),
		changeOf("resume", 0, "Go on with a paused plan", simpleChange("resume")),
		changeOf("cancel", 0, "Undo the move under way and drop those to come; moves that are done stay done", simpleChange("cancel")),
	}
}

func simpleChange(what string) func(*changeCommand, *cobra.Command, []string) error {
	return func(c *changeCommand, cmd *cobra.Command, _ []string) error { return c.post(cmd, what, nil) }
}

func changeOf(use string, args int, short string, run func(*changeCommand, *cobra.Command, []string) error) *cobra.Command {
	c := &changeCommand{}
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, a []string) error { return run(c, cmd, a) }}
	c.clusterFlags(cmd)
	cmd.Flags().BoolVar(&c.yes, "yes", false, "do not ask")
	if strings.HasPrefix(use, "remove") {
		cmd.Flags().BoolVar(&c.force, "force", false, "give up the replicas of a node that is dead")
	}
	return cmd
}

// plan shows a plan and returns it.
func (c *changeCommand) plan(cmd *cobra.Command, form url.Values) (*cluster.Proposal, error) {
	a, err := c.ask(cmd.Context(), adminPath+"plan", form)
	if err != nil {
		return nil, err
	}
	p := &cluster.Proposal{}
	if err := json.Unmarshal(a.Data, p); err != nil {
		return nil, err
	}
	if c.format == "json" {
		return p, writeJSON(cmd.OutOrStdout(), a)
	}
	return p, writePlan(cmd.OutOrStdout(), p)
}

func writePlan(w io.Writer, p *cluster.Proposal) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tREPLICAS NOW\tTHEN")
	for _, n := range p.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\n", n.Node, n.State, n.Before, n.After)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(p.Moves) == 0 {
		_, err := fmt.Fprintln(w, "\nnothing is to be moved")
		return err
	}
	fmt.Fprintf(w, "\nplan %s, %d moves, one after another:\n", p.ID, len(p.Moves))
	for i := range p.Moves {
		fmt.Fprintf(w, "  %s\n", &p.Moves[i])
	}
	fewer := slices.ContainsFunc(p.Moves, func(m cluster.Move) bool { return m.To == "" })
	switch members := p.Members(); {
	case fewer && members == 2:
		fmt.Fprintln(w, "\nOnly two members are left: no shard goes on while either of them is away. Add a third.")
	case fewer && members == 1:
		fmt.Fprintln(w, "\nOnly one member is left: what is on its disk is nowhere else. Add two more.")
	}
	return nil
}

// planned shows a plan, asks, and has it carried out: it and no other.
func (c *changeCommand) planned(cmd *cobra.Command, what string, of, form url.Values) error {
	p, err := c.plan(cmd, of)
	if err != nil {
		return err
	}
	if len(p.Moves) > 0 {
		if err := c.confirm(cmd, "Carry it out?"); err != nil {
			return err
		}
	} else if what == "rebalance" {
		return nil
	}
	if form == nil {
		form = url.Values{}
	}
	form.Set("plan", p.ID)
	return c.post(cmd, what, form)
}

func removeNode(c *changeCommand, cmd *cobra.Command, a []string) error {
	form := url.Values{"node": a}
	if c.force {
		fmt.Fprintf(cmd.OutOrStdout(), "The replicas on %s are given up: a shard of three is left with two, which is a majority of itself only while\n"+
			"both run, and one of two with none to spare, until `strandline cluster rebalance` has made new ones. A shard that has lost its\n"+
			"majority already can't agree to this and stays as it is: when all nodes but one are lost for good, stop that one and run\n"+
			"`strandline cluster recover` on its folder instead. %s must never start again with its old folder.\n", a[0], a[0])
		form.Set("force", "true")
	}
	if err := c.confirm(cmd, "Remove "+a[0]+" for good?"); err != nil {
		return err
	}
	return c.post(cmd, "remove", form)
}

func (c *changeCommand) confirm(cmd *cobra.Command, what string) error {
	if c.yes {
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s [y/N] ", what)
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if s := strings.ToLower(strings.TrimSpace(line)); s != "y" && s != "yes" {
		return errNotConfirmed
	}
	return nil
}

func (c *changeCommand) post(cmd *cobra.Command, what string, form url.Values) error {
	if _, err := c.ask(cmd.Context(), adminPath+what, form); err != nil {
		return err
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), "accepted; `strandline cluster status` shows how far it is")
	return err
}
