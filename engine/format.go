package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// format is what a data folder was made with; it lies in the file FORMAT and never
// changes while there is data: where a series lies follows from it.
type format struct {
	Version     int    `json:"version"`
	Shards      int    `json:"shards"`
	HashVersion int    `json:"hashVersion"`
	PairLabel   string `json:"pairLabel,omitempty"`
}

const (
	formatName    = "FORMAT"
	formatVersion = 1
)

// hashVersion says how series are placed: by all labels, or by all but one. A binary that
// does not know of the second refuses the folder.
func hashVersion(pairLabel string) int {
	if pairLabel == "" {
		return model.HashVersion
	}
	return model.PairHashVersion
}

// loadFormat reads the folder's format, or gives a new folder one.
func (db *DB) loadFormat() error {
	name := path.Join(db.dir, formatName)
	b, err := vfs.ReadFile(db.opts.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		// It is there before any shard is.
		if _, serr := db.opts.FS.Stat(path.Join(db.dir, "shards")); !errors.Is(serr, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%w; %s", err, formatRemedy), serr)
		}
		db.pairLabel = db.opts.PairLabel
		return db.writeFormat()
	}
	if err != nil {
		return err
	}
	f, err := parseFormat(b)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	db.opts.Shards, db.pairLabel = f.Shards, f.PairLabel
	if f.PairLabel != db.opts.PairLabel && db.opts.PairLabel != "" {
		db.opts.Logger.Info("the data folder places series without regard to another label than the one that is set: pairs of senders are joined on reading and kept apart on disk",
			"folder", f.PairLabel, "set", db.opts.PairLabel)
	}
	return nil
}

func (db *DB) format() ([]byte, error) {
	b, err := json.Marshal(format{Version: formatVersion, Shards: db.opts.Shards, HashVersion: hashVersion(db.pairLabel), PairLabel: db.pairLabel})
	return vfs.Seal(b), err
}

func (db *DB) writeFormat() error {
	b, err := db.format()
	if err != nil {
		return err
	}
	return vfs.WriteFile(db.opts.FS, path.Join(db.dir, formatName), b)
}

// formatRemedy is what to do about a FORMAT that can't be used.
const formatRemedy = "the file may be damaged or lost: bring it back from a backup of this folder or from another node of its cluster, where it is the same; " +
	"a folder of a newer version needs that version of strandline"

func parseFormat(b []byte) (f format, err error) {
	if err := errors.Join(vfs.CheckSeal(b), json.Unmarshal(b, &f)); err != nil {
		return f, fmt.Errorf("%w; %s", err, formatRemedy)
	}
	switch {
	case f.Version != formatVersion:
		return f, fmt.Errorf("data format %d is not known to this binary; %s", f.Version, formatRemedy)
	case f.HashVersion != hashVersion(f.PairLabel):
		return f, fmt.Errorf("hash version %d is not known to this binary, or does not go with the pair label %q; %s", f.HashVersion, f.PairLabel, formatRemedy)
	case f.Shards < 1 || f.Shards > 1024:
		return f, fmt.Errorf("%d shards are not between 1 and 1024; %s", f.Shards, formatRemedy)
	}
	return f, nil
}

// place returns the shard of a series, whose key has the hash that is given. Series of
// a pair of senders lie in one, so that a shard can choose between them.
func (db *DB) place(key []byte, hash uint64) int {
	if db.pairLabel != "" {
		hash = model.PairHash(key, hash, db.pairLabel)
	}
	return model.ShardOf(hash, len(db.shards))
}

// PairLabel returns the label that the folder leaves out when it places series; "": none.
func (r *Replicas) PairLabel() string { return r.db.pairLabel }

// AdoptPairLabel makes the label that of the cluster which this folder, that must be
// empty, enters. It is for a Committer that has not started.
func (r *Replicas) AdoptPairLabel(label string) error {
	if r.db.pairLabel == label {
		return nil
	}
	r.db.opts.Logger.Info("the data folder takes the cluster's label of pairs of senders", "label", label, "instead_of", r.db.pairLabel)
	r.db.pairLabel = label
	return r.db.writeFormat()
}
