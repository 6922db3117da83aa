package chunk

// Kind says what a chunk holds.
type Kind uint8

// Kinds are part of the block format; never renumber.
const (
	Floats    Kind = 1 // float64 samples
	Blobs     Kind = 2 // native histograms, each an opaque self-describing byte string
	Exemplars Kind = 3 // exemplars, each an opaque self-describing byte string
)

// MaxSamples is the most samples that a chunk may hold.
const MaxSamples = 4096

// Stats describe a Floats chunk, so that a window that covers it whole is answered
// without decoding. Sum, Min and Max leave NaNs (stale markers too) out; if all values
// are NaN, Count-NaNs is 0 and they are 0. Resets counts the values smaller than the
// value before them within the chunk (NaNs left out). Sum is the compensated sum, so
// that adding up chunks loses nothing that summing their samples would not.
type Stats struct {
	Count, NaNs   int
	Sum, Min, Max float64
	First, Last   float64 // values as stored, NaNs included
	Resets        int
}
