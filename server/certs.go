package server

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/strandline-db/strandline/wal/clock"
)

// certCheck is how often the files of a certificate are looked at, at most.
const certCheck = 5 * time.Second

// Certificate is a certificate from files, read again when they change. Safe for
// concurrent use.
type Certificate struct {
	certFile, keyFile string
	clock             clock.Clock
	log               *slog.Logger
	mu                struct {
		sync.Mutex
		cert    *tls.Certificate
		stamp   [2]stamp
		checked time.Time
	}
}

// stamp tells whether a file is another than before.
type stamp struct {
	modified time.Time
	size     int64
}

// LoadCertificate reads the PEM files of a chain and its key. A nil logger
// discards, a nil clock is the machine's.
func LoadCertificate(certFile, keyFile string, log *slog.Logger, c clock.Clock) (*Certificate, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if c == nil {
		c = clock.Real{}
	}
	r := &Certificate{certFile: certFile, keyFile: keyFile, clock: c, log: log}
	return r, r.Reload()
}

// Reload reads the files now. On an error the certificate stays as it was.
func (r *Certificate) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reloadLocked(r.look())
}

func (r *Certificate) reloadLocked(now [2]stamp) error {
	cert, err := tls.LoadX509KeyPair(r.certFile, r.keyFile)
	if err != nil {
		return err
	}
	r.mu.cert, r.mu.stamp, r.mu.checked = &cert, now, r.clock.Now()
	return nil
}

// look returns what the files are; zero for one that can't be looked at.
func (r *Certificate) look() (s [2]stamp) {
	for i, f := range []string{r.certFile, r.keyFile} {
		if fi, err := os.Stat(f); err == nil {
			s[i] = stamp{fi.ModTime(), fi.Size()}
		}
	}
	return s
}

// TLS returns the configuration of a listener that shows this certificate.
func (r *Certificate) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: r.get}
}

// get is called at each handshake. A changed pair that can't be read, such as one
// of which only a half is written yet, is reported and tried again later.
func (r *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.clock.Now(); now.Sub(r.mu.checked) >= certCheck {
		r.mu.checked = now
		if s := r.look(); s != r.mu.stamp {
			if err := r.reloadLocked(s); err != nil {
				r.log.Warn("the changed certificate can't be read; the old one stays", "err", err)
			} else {
				r.log.Info("certificate reloaded", "file", r.certFile)
			}
		}
	}
	return r.mu.cert, nil
}
