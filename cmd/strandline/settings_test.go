package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestListFlagsAdd: a flag of values separated by commas that is there twice has the values of
// both; of any other the last counts.
func TestListFlagsAdd(t *testing.T) {
	cmd := &cobra.Command{}
	addSettingFlags(cmd)
	if err := cmd.ParseFlags([]string{"--rule-files=a,b", "--webhook-allow", "10.0.0.0/8", "--rule-files", "c", "--webhook-allow", "::1/128", "--shards=2", "--shards=4"}); err != nil {
		t.Fatal(err)
	}
	file := ""
	c, err := settingsOf(cmd, &file)()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(c.RuleFiles, want) || len(c.WebhookAllow) != 2 || c.Shards != 4 {
		t.Errorf("got %v, %v, %d shards", c.RuleFiles, c.WebhookAllow, c.Shards)
	}
}

// TestFlagHelp: what a setting's help quotes is not taken for what its flag wants.
func TestFlagHelp(t *testing.T) {
	cmd := &cobra.Command{}
	addSettingFlags(cmd)
	for line := range strings.Lines(cmd.UsageString()) {
		f := strings.Fields(line)
		if len(f) > 1 && strings.HasPrefix(f[0], "--") && !strings.HasPrefix(f[1], "string") {
			t.Errorf("got %s %s", f[0], f[1])
		}
	}
}
