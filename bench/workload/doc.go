// Package workload makes the remote-write bodies that every server under measurement is sent.
//
// A workload is written once to a body file and then streamed from it, so that making samples costs the
// servers no CPU while they are measured, and so that every server gets the very same bytes. Two sources
// exist: Fleet, a synthetic fleet of hosts that depends on its seed alone, and Set, a recording of real
// exporters multiplied over hosts. Bodies carry a lane: all samples of one series are in one lane, in order
// of time, so that a sender with one connection a lane never reorders a series.
//
// A Writer belongs to one goroutine. A File may be read by many at once.
package workload
