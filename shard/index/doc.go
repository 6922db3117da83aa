// Package index finds series by label matchers: in memory for a head (Mem), and
// for any other source of postings (Select, LabelNames, LabelValues over Postings).
//
// Ids are a source's own small numbers. Slices that come out of a Postings are
// shared and never changed; what Select returns belongs to the caller. Mem is
// guarded by its owner: any number of readers, or one writer.
package index
