package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"
)

// errCertName keeps the authority from being written over, and files from outside the folder,
// and a certificate from being good for other nodes: see certName.
var errCertName = errors.New("a certificate is for a name of ASCII letters, digits, dots, dashes and underscores that begins with no dot and is not ca")

// certName is what TLS takes for the name of one host, or its address; a star would stand for any.
var certName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)

// errCertThere keeps a certificate in use from being written over.
var errCertThere = errors.New("there is a certificate already; --renew makes new ones")

const (
	caName   = "ca"
	caLife   = 10 * 365 * 24 * time.Hour
	certLife = 2 * 365 * 24 * time.Hour
)

func newCerts() *cobra.Command {
	dir, renew := "certs", false
	cmd := &cobra.Command{
		Use:   "certs NODE...",
		Short: "Make a private authority and a certificate for each node, to try a cluster with TLS",
		Long: `Make a private certificate authority and, for each node, a certificate and a key made out to its name.
An authority that is there already is used again, so that nodes can be added. Keep ca.key away from the nodes.
A node's certificate is good for two years; with --renew a new one takes its place, also while the node runs.`,
		Example: "  strandline cluster certs --dir certs n1 n2 n3",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return makeCerts(dir, args, renew, cmd.OutOrStdout()) },
	}
	cmd.Flags().StringVar(&dir, "dir", dir, "folder for the files")
	cmd.Flags().BoolVar(&renew, "renew", false, "make new certificates and keys for nodes that have them")
	return cmd
}

func makeCerts(dir string, names []string, renew bool, w io.Writer) error {
	for _, name := range names {
		if err := mayMakeCert(dir, name, renew); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, caKey, err := authority(dir, w)
	if err != nil {
		return err
	}
	for _, name := range names {
		template, err := template(name, certLife)
		if err != nil {
			return err
		}
		if ip := net.ParseIP(name); ip != nil { // TLS looks for it nowhere else
			template.IPAddresses = []net.IP{ip}
		} else {
			template.DNSNames = []string{name}
		}
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		if _, _, err := sign(filepath.Join(dir, name), template, ca, caKey); err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: --cluster-tls-cert %[2]s.crt --cluster-tls-key %[2]s.key --cluster-tls-ca %[3]s\n",
			name, filepath.Join(dir, name), filepath.Join(dir, caName+".crt"))
	}
	return nil
}

// mayMakeCert returns nil if a certificate for a node may be written.
func mayMakeCert(dir, name string, renew bool) error {
	if name == caName || !certName.MatchString(name) {
		return fmt.Errorf("%w: %q", errCertName, name)
	}
	file := filepath.Join(dir, name+".crt")
	if _, err := os.Stat(file); err == nil && !renew {
		return fmt.Errorf("%w: %s", errCertThere, file)
	}
	return nil
}

// authority reads the authority in dir, or makes one.
func authority(dir string, w io.Writer) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	file := filepath.Join(dir, caName)
	certPEM, err := os.ReadFile(file + ".crt")
	if errors.Is(err, os.ErrNotExist) {
		template, err := template("strandline trial authority", caLife)
		if err != nil {
			return nil, nil, err
		}
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		fmt.Fprintf(w, "authority: %s.crt\n", file)
		return sign(file, template, template, nil)
	}
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := os.ReadFile(file + ".key")
	if err != nil {
		return nil, nil, err
	}
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, nil, fmt.Errorf("%s.crt or %s.key is not PEM; move both away to make a new authority", file, file)
	}
	ca, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s.crt: %w", file, err)
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s.key: %w", file, err)
	}
	return ca, key, nil
}

func template(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}, nil
}

// sign makes a key and a certificate of it, and writes both beside file. A nil signer
// is the key itself.
func sign(file string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(file+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(file+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
