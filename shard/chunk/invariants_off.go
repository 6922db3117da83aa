//go:build !invariants

package chunk

// invariants is on in builds with the tag of that name: every chunk is then decoded
// again and compared as soon as it is written.
const invariants = false
