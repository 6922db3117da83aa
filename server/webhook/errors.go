package webhook

import "errors"

// Errors of this package. None of them holds a URL's path, query or a secret.
var (
	// ErrBadOptions: an option can't be used.
	ErrBadOptions = errors.New("bad webhook options")
	// ErrBadURL: a text can't be the URL of a webhook. 400.
	ErrBadURL = errors.New("bad webhook URL")
	// ErrForbiddenAddress: an address is private, local or reserved, and not allowed. 400.
	ErrForbiddenAddress = errors.New("webhook address is private, local or reserved; the setting webhook-allow permits networks")
	// ErrNoAddress: a name has no address.
	ErrNoAddress = errors.New("webhook host has no address")
	// ErrStatus: a target answered with other than 2xx.
	ErrStatus = errors.New("webhook target answered")
	// ErrSignature: a signature is malformed, too old or wrong.
	ErrSignature = errors.New("bad webhook signature")
	// ErrBadMessage: a message is too large.
	ErrBadMessage = errors.New("bad webhook message")
)
