package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// ErrTLS: the certificates between nodes are of no use.
var ErrTLS = errors.New("cluster certificates")

// MutualTLS returns a network over which both ends must show a certificate of the
// authority in caFile: the dialling node the one that is made out to its own name,
// the listening node one made out to the name by which it is dialled; of a node that is
// asked to let this one join no name is known, so that any certificate of the authority
// will do.
// Certificate and key are read again for each connection, so that they can be
// replaced without a restart.
func MutualTLS(inner Network, certFile, keyFile, caFile string) (Network, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s holds no certificate", ErrTLS, caFile)
	}
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTLS, err)
		}
		return &c, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	return &mutualTLS{inner: inner, pool: pool, conf: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() },
	}}, nil
}

type mutualTLS struct {
	inner Network
	pool  *x509.CertPool
	conf  *tls.Config
}

// Listen implements Network.
func (m *mutualTLS) Listen(addr string) (net.Listener, error) {
	ln, err := m.inner.Listen(addr)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(ln, m.conf), nil
}

// Dial implements Network.
func (m *mutualTLS) Dial(ctx context.Context, name, addr string) (net.Conn, error) {
	conn, err := m.inner.Dial(ctx, name, addr)
	if err != nil {
		return nil, err
	}
	conf := m.conf.Clone()
	conf.ServerName = name
	if name == "" {
		conf.InsecureSkipVerify = true // of the name: the chain is verified here
		conf.VerifyConnection = m.verifyChain
	}
	c := tls.Client(conn, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrTLS, addr, err), conn.Close())
	}
	return c, nil
}

func (m *mutualTLS) verifyChain(s tls.ConnectionState) error {
	o := x509.VerifyOptions{Roots: m.pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range s.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(o)
	return err
}

// checkName compares what a dialling node calls itself with its certificate.
func checkName(conn net.Conn, name string) error {
	c, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	certs := c.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return fmt.Errorf("%w: node %s showed none", ErrTLS, name)
	}
	if err := certs[0].VerifyHostname(name); err != nil {
		return fmt.Errorf("%w: a node that calls itself %s: %w", ErrTLS, name, err)
	}
	return nil
}
