package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

func newBackup() *cobra.Command {
	var f queryFlags
	cmd := &cobra.Command{
		Use:   "backup NAME",
		Short: "Make a backup of a running server or cluster, in the server's backup-dir",
		Long: `Make a backup of a running server or cluster, in the backup-dir of the server that is asked.
Every write that was acknowledged before is in it. Any node of a cluster makes a backup of the whole
cluster; what it does not hold it fetches from nodes that do.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := f.ask(cmd.Context(), "/api/v1/admin/backup", url.Values{"name": args})
			if err != nil {
				return err
			}
			if f.format == "json" {
				return writeJSON(cmd.OutOrStdout(), a)
			}
			if f.format != "table" {
				return fmt.Errorf("%w, got %q", errFormat, f.format)
			}
			b := &engine.Backup{}
			if err := json.Unmarshal(a.Data, b); err != nil {
				return err
			}
			return writeBackup(cmd.OutOrStdout(), "made", b)
		},
	}
	f.clusterFlags(cmd)
	cmd.AddCommand(newBackupVerify())
	return cmd
}

func writeBackup(w io.Writer, what string, b *engine.Backup) error {
	_, err := fmt.Fprintf(w, "backup %s of %s %s: %d shards, %d files, %d bytes; records at revision %d; last log entries of the shards %v\n",
		b.Name, b.Made.Format(time.RFC3339), what, b.Shards, len(b.Files), b.Bytes(), b.Revision, b.Indexes)
	return err
}

func newBackupVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Verify every checksum and cross-reference of a backup",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, faults := cmd.OutOrStdout(), 0
			b, err := engine.VerifyBackup(cmd.Context(), vfs.OS{}, args[0], func(path string, err error) {
				faults++
				fmt.Fprintf(out, "%s: %v\n", path, err)
			})
			if err != nil {
				return err
			}
			if faults > 0 {
				return fmt.Errorf("%s: %w: %d", args[0], errDamaged, faults)
			}
			return writeBackup(out, "is sound", b)
		},
	}
}

func newRestore() *cobra.Command {
	var from, dir string
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Make a new data folder from a backup",
		Long: `Make a new data folder from a backup. It is that of a single node, with all tiers in it, and can
become the first node of a cluster. A file that is damaged ends the restore, and nothing is left of it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := engine.Restore(cmd.Context(), vfs.OS{}, from, dir)
			if err != nil {
				return err
			}
			return writeBackup(cmd.OutOrStdout(), "restored into "+dir, b)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "folder of the backup")
	cmd.Flags().StringVar(&dir, "data", "", "folder to make; if it is there it must be empty")
	for _, name := range []string{"from", "data"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return cmd
}

// backup serves POST /api/v1/admin/backup.
func (n *node) backup(ctx context.Context, name string) (any, error) {
	o := &engine.BackupOptions{Dir: n.cfg.BackupDir}
	if c := n.cluster; c != nil {
		o.Sync, o.Holds, o.Elsewhere, o.Skip = c.SyncAll, c.Holds, c.CopyElsewhere, cluster.IsMapRecord
	}
	b, err := n.db.Backup(ctx, name, o)
	kind := query.KindOf(err)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, engine.ErrBackupName):
		kind = query.BadData
	case errors.Is(err, engine.ErrBackupRuns), errors.Is(err, engine.ErrBackupExists), errors.Is(err, cluster.ErrRefused):
		kind = query.Conflict
	case errors.Is(err, model.ErrReadOnly):
		kind = query.Unavailable
	}
	return nil, &query.Error{Kind: kind, Err: err}
}

// refuseClusterFolder keeps a cluster's node from being changed behind the cluster's back.
func refuseClusterFolder(dir string) error {
	owned, err := cluster.OwnsFolder(vfs.OS{}, dir)
	if err == nil && owned {
		err = errClusterFolder
	}
	if err != nil {
		return fmt.Errorf("data folder %s: %w", dir, err)
	}
	return nil
}
