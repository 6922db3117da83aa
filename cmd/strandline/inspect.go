package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/bbolt"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/block"
	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/vfs"
)

func newInspect() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{Use: "inspect", Short: "Print what is in a file of a data folder; the server must be stopped"}
	add := func(use, short string, run func(w io.Writer, name string) error) {
		cmd.AddCommand(&cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return run(cmd.OutOrStdout(), filepath.ToSlash(args[0]))
			}})
	}
	add("wal DIR", "The log in DIR (data/wal), a line a batch", func(w io.Writer, dir string) error {
		return wal.Dump(vfs.OS{}, dir, w, verbose)
	})
	add("block FILE", "A block, with --verbose each chunk", func(w io.Writer, file string) error {
		return block.Dump(vfs.OS{}, file, w, verbose)
	})
	add("manifest DIR", "The manifest of the shard in DIR (data/shards/NNN)", func(w io.Writer, dir string) error {
		return shard.DumpManifest(vfs.OS{}, dir, w)
	})
	add("meta FILE", "The descriptions of metrics and the records in FILE (data/meta.db)", dumpMeta)
	add("backup DIR", "What the backup in DIR says of itself", func(w io.Writer, dir string) error {
		b, err := engine.ReadBackup(vfs.OS{}, dir)
		if err != nil {
			return err
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(b)
	})
	cmd.PersistentFlags().BoolVarP(&verbose, "verbose", "v", false, "print more")
	return cmd
}

// dumpMeta prints bucket, key and value, without the value's checksum.
func dumpMeta(w io.Writer, file string) (err error) {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("%s: %w (stop the server first)", file, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if len(v) >= 4 {
					v = v[4:]
				}
				_, err := fmt.Fprintf(w, "%s\t%q\t%s\n", name, k, v)
				return err
			})
		})
	})
}
