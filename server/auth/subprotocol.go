package auth

import (
	"encoding/base64"
	"strings"
)

// bearerProtocol is before a token among a WebSocket's subprotocols.
const bearerProtocol = "bearer."

// Authorization returns the value of an Authorization header that the subprotocols which
// a WebSocket client offers stand for: a page can set no header on a WebSocket, so
// its token comes there, as "bearer." and the token in unpadded base64url. Empty: there is
// none, or more than one.
func Authorization(protocols []string) string {
	found := ""
	for _, header := range protocols {
		for p := range strings.SplitSeq(header, ",") {
			coded, ok := strings.CutPrefix(strings.TrimSpace(p), bearerProtocol)
			if !ok {
				continue
			}
			token, err := base64.RawURLEncoding.Strict().DecodeString(coded)
			if err != nil || len(token) == 0 || found != "" {
				return ""
			}
			found = "Bearer " + string(token)
		}
	}
	return found
}
