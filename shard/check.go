package shard

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/strandline-db/strandline/shard/block"
	"github.com/strandline-db/strandline/shard/chunk"
)

// Check verifies a closed shard's files and reports each fault.
func Check(ctx context.Context, o Options, report func(path string, err error)) {
	o.EnsureDefaults()
	m, err := ReadManifest(o.FS, o.Dir)
	if err != nil {
		report(path.Join(o.Dir, manifestName), err)
		return
	}
	if m.Shard != o.ID {
		report(path.Join(o.Dir, manifestName), fmt.Errorf("%w: it belongs to shard %d, not %d", ErrManifest, m.Shard, o.ID))
	}
	if m.Table != nil {
		if err := readTable(o.FS, o.Dir, m.Table, func(uint32, string) {}); err != nil {
			report(path.Join(o.Dir, m.Table.Name), err)
		}
	}
	s := &Shard{opts: o}
	for _, ref := range m.Blocks {
		name := path.Join(s.tierDir(ref.Tier), ref.Name)
		if err := checkBlock(ctx, o, name, ref); err != nil {
			report(name, err)
		}
	}
}

func checkBlock(ctx context.Context, o Options, name string, ref BlockRef) (err error) {
	r, err := block.Open(o.FS, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := describes(o, &ref, r.Meta()); err != nil {
		return err
	}
	return r.Verify(ctx, decodable)
}

// describes tells whether a manifest's line is about a block.
func describes(o Options, ref *BlockRef, meta block.Meta) error {
	if meta.MinT != ref.MinT || meta.MaxT != ref.MaxT || meta.Samples != ref.Samples || meta.Shard != o.ID {
		return fmt.Errorf("%w: the block is not the one that the manifest describes", ErrManifest)
	}
	return nil
}

// decodable returns a check that a chunk's bytes decode.
func decodable(kind chunk.Kind, data []byte) error {
	var d chunk.Decoder
	if kind == chunk.Floats {
		_, _, _, err := d.Floats(data, nil, nil, nil)
		return err
	}
	_, _, _, err := d.Blobs(data, nil, nil, nil)
	return err
}
