// Package auth says who a request comes from and what it may do: basic
// authentication against bcrypt hashes and bearer tokens against SHA-256
// hashes, each with a role. It keeps no plain secret, and none appears in its
// errors. An Authenticator is safe for concurrent use; a reload builds a new one.
package auth
