package live

import (
	"fmt"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"
)

// onlyKnown refuses parameters that are none of the names: one that is misspelt must not
// be as if it was not there.
func onlyKnown(args map[string][]string, names ...string) error {
	for name := range args {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%w %.100q: known are %s", errParam, name, strings.Join(names, ", "))
		}
	}
	return nil
}

// noParameters is for the WebSockets, which are told all by messages.
func noParameters(rc *fasthttp.RequestCtx) error {
	for name := range rc.QueryArgs().All() {
		return fmt.Errorf("%w %.100q: this path takes none; what is wanted is sent as messages, and a token as a header or subprotocol", errParam, name)
	}
	return nil
}
