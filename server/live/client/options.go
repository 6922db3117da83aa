package client

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options of a Client. Nil and zero values mean the defaults named here.
type Options struct {
	// User and Password, or Token (a bearer token), or those in a URL.
	User, Password, Token string
	TLS                   *tls.Config // of https URLs. Default: the system's
	// MinBackoff and MaxBackoff bound the wait before connecting again. Defaults 100ms and 10s.
	MinBackoff, MaxBackoff time.Duration
	// Timeout is how long a connect may take, and how long a server may be silent: it
	// sends a heartbeat every 5s. Default 20s.
	Timeout time.Duration
	// Buffer is how many updates of a subscription wait for their reader. Default 1024.
	Buffer int
	Logger *slog.Logger // default: discard
}

// EnsureDefaults fills in what is zero. It works on a nil receiver and returns the
// options to use.
func (o *Options) EnsureDefaults() *Options {
	if o == nil {
		o = &Options{}
	}
	orDefault(&o.MinBackoff, 100*time.Millisecond)
	orDefault(&o.MaxBackoff, 10*time.Second)
	orDefault(&o.Timeout, 20*time.Second)
	orDefault(&o.Buffer, 1024)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Validate reports every fault at once, each wrapping ErrBadOptions.
func (o *Options) Validate() error {
	var errs []error
	if o.MinBackoff < 0 || o.MaxBackoff < o.MinBackoff {
		errs = append(errs, fmt.Errorf("%w: MinBackoff %s and MaxBackoff %s", ErrBadOptions, o.MinBackoff, o.MaxBackoff))
	}
	if o.Timeout < 0 {
		errs = append(errs, fmt.Errorf("%w: Timeout %s", ErrBadOptions, o.Timeout))
	}
	if o.Buffer < 0 {
		errs = append(errs, fmt.Errorf("%w: Buffer %d", ErrBadOptions, o.Buffer))
	}
	if o.Token != "" && o.User != "" {
		errs = append(errs, fmt.Errorf("%w: give User or Token", ErrBadOptions))
	}
	return errors.Join(errs...)
}

// target is where to connect to, and as whom.
type target struct {
	url    string
	header http.Header
}

// target makes a WebSocket's address of a server's. Errors don't show its password.
func (o *Options) target(server string) (target, error) {
	u, err := url.Parse(server)
	if err != nil {
		return target{}, fmt.Errorf("%w: a URL can't be parsed", ErrBadOptions)
	}
	scheme, ok := map[string]string{"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}[u.Scheme]
	if !ok || u.Host == "" {
		return target{}, fmt.Errorf("%w: %q is not an http or https URL", ErrBadOptions, u.Redacted())
	}
	h := http.Header{}
	user := u.User
	if o.User != "" {
		user = url.UserPassword(o.User, o.Password)
	}
	switch {
	case o.Token != "":
		h.Set("Authorization", "Bearer "+o.Token)
	case user != nil:
		pass, _ := user.Password()
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+pass)))
	}
	u.Scheme, u.User = scheme, nil
	u.Path = strings.TrimSuffix(u.Path, "/") + "/api/v1/live"
	return target{u.String(), h}, nil
}
