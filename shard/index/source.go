package index

// Source lists the labels of a set of series. Identifiers are unique in the set.
// Slices that a method returns are sorted, and neither side writes to them.
type Source interface {
	// Names returns the label names in use, sorted.
	Names() ([]string, error)
	// All returns every series.
	All() ([]uint32, error)
	// Postings returns the series whose label name has the value, which is not empty.
	Postings(name, value string) ([]uint32, error)
	// Has returns the series that have the label name.
	Has(name string) ([]uint32, error)
	// Values calls emit for each value of label name that starts with prefix and
	// that keep accepts (nil accepts all), in any order, with the series that have
	// it. ids is valid only until emit returns; value may be kept. It stops at the
	// first error, which it returns.
	Values(name, prefix string, keep func(value string) bool, emit func(value string, ids []uint32) error) error
	// ValueNames calls fn for each value of label name, in any order. The string
	// may be kept.
	ValueNames(name string, fn func(value string)) error
}
