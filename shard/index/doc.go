// Package index answers label matchers: which series of a set do they select?
//
// In go series identifiers with their label keys (Mem), or anything else that
// can list its label values and their series (Source); out come sorted slices of
// identifiers. Select, LabelNames and LabelValues are shared by the head's
// index, which is Mem, and by block files, which bring a Source of their own, so
// that a matcher means the same wherever a series lies.
//
// # Meaning
//
// A matcher looks at the value of one label; a series without the label counts
// as having the value "". So {a=""}, {a!="x"} and {a=~"x|"} select series that
// have no label a, as in Prometheus.
//
// # Memory and concurrency
//
// A Mem keeps the strings that Add is given alive, and copies of none of them:
// label values are slices of the keys. It has no lock: Add and Remove need
// exclusion from everything else, all other methods may run side by side. The
// slices that Select and its sisters return belong to the caller; slices that a
// Source hands out are never written to.
//
// Postings are sorted slices even when they are long: each label of a series
// costs four bytes and the growth room of append, 3.2 MB for 100,000 series of 8
// labels. A roaring bitmap would save most of that only on lists that are both
// long and dense, and makes the short ones, which are most, larger.
//
// It does no I/O and starts no goroutine.
package index
