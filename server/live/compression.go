package live

import (
	"strconv"
	"strings"
)

// headerExtensions is spelt as net/http does.
const headerExtensions = "Sec-Websocket-Extensions"

// deflate is the extension that compresses each message by itself (RFC 7692).
const deflate = "permessage-deflate"

// offersDeflate reports whether one of the extensions that a client offers is a compression
// that we can keep to: an offer with anything else must be declined, as the client would fail
// the connection (RFC 7692, 5.1 and 7.1). We can't keep to a window of a certain size.
func offersDeflate(headers []string) bool {
	for offer := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		name, params, some := strings.Cut(offer, ";")
		if strings.TrimSpace(name) == deflate && (!some || keepable(params)) {
			return true
		}
	}
	return false
}

// keepable reports whether we know and can do what the parameters of an offer ask for, each
// of which may be there once.
func keepable(params string) bool {
	seen := map[string]bool{}
	for param := range strings.SplitSeq(params, ";") {
		name, value, given := strings.Cut(param, "=")
		name, value = strings.TrimSpace(name), strings.Trim(value, " \t\"")
		if seen[name] {
			return false
		}
		seen[name] = true
		switch name {
		case "server_no_context_takeover", "client_no_context_takeover":
			if given {
				return false
			}
		case "client_max_window_bits": // what the client can do; we read a window of any size
			if bits, err := strconv.Atoi(value); given && (err != nil || bits < 8 || bits > 15) {
				return false
			}
		default:
			return false
		}
	}
	return true
}
