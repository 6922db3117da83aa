// Package model holds the words that every part of Strandline speaks: the
// label key of a series, a batch of samples on its way in, the columns of
// samples on their way out, the read contract, and the typed errors.
//
// It is a leaf: it imports no other package of the project. Nothing in it does
// I/O or starts a goroutine. A Batch and Columns are owned by one goroutine at
// a time; everything else is immutable after it is built.
package model
