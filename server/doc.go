// Package server assembles the HTTP server: routes, the role each one needs,
// limits, and the refusal to listen openly. Writing and reading are handlers
// that it is given. A Server is safe for concurrent use.
package server
