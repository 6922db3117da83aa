// Package querytest is a plain in-memory storage for tests of what queries
// through shard/model: a model.Reader that follows the contract to the letter
// with no cleverness, and Prometheus' storage.Storage on top of it, so that
// upstream's suites can load data. Only tests import it.
//
// Everything is copied on the way in and out; a Store is safe for concurrent use.
package querytest
