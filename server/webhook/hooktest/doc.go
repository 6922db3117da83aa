// Package hooktest is a store in memory and a network of pipes, for tests of what
// delivers webhooks. Only tests import it. All of it works in a bubble of testing/synctest,
// where time stands still until nothing else can go on. Safe for concurrent use.
package hooktest
