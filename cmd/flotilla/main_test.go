package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
)

const issuer = "acme-v02.api.letsencrypt.org-directory"

// operator is somebody at a terminal.
type operator struct {
	stdin    string
	env      map[string]string
	terminal bool // stderr
	screen   bool // stdout
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
}

// said is what a run of the program has said.
type said struct {
	code        int
	out, errOut string
}

func (o *operator) run(t *testing.T, args ...string) said {
	t.Helper()
	return o.runFor(t.Context(), args...)
}

// runFor runs the program until it ends, or ctx does.
func (o *operator) runFor(ctx context.Context, args ...string) said {
	var out, errOut bytes.Buffer
	p := &program{
		stdin:    strings.NewReader(o.stdin),
		stdout:   &out,
		stderr:   &errOut,
		env:      func(name string) string { return o.env[name] },
		terminal: o.terminal,
		screen:   o.screen,
		dial:     o.dial,
	}
	return said{p.run(ctx, args), out.String(), errOut.String()}
}

// operatorOf is somebody who knows how to reach all nodes of c.
func operatorOf(c *clustertest.Cluster) *operator {
	var addrs []string
	for i := range c.Nodes {
		addrs = append(addrs, c.Config(i).Name+":7373")
	}
	return &operator{
		env:  map[string]string{"FLOTILLA_SECRETS": c.Config(0).Secrets[0].Encode(), "FLOTILLA_PEERS": strings.Join(addrs, ",")},
		dial: c.Config(0).PeerDial,
	}
}

// want checks how a run has ended and what it has said, in parts.
func (s said) want(t *testing.T, code int, parts ...string) {
	t.Helper()
	all := s.out + s.errOut
	if s.code != code {
		t.Errorf("exit code %d, want %d; it said:\n%s", s.code, code, all)
	}
	for _, part := range parts {
		if !strings.Contains(all, part) {
			t.Errorf("it should say %q, and said:\n%s", part, all)
		}
	}
}

// store puts records into a directory as certmagic does.
func store(t *testing.T, dir string, records map[string]string) {
	t.Helper()
	s := &certmagic.FileStorage{Path: dir}
	for key, value := range records {
		if err := s.Store(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
}

// certificate returns the three records of a certificate for a site.
func certificate(t *testing.T, site string, until time.Time) map[string]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: site},
		DNSNames:     []string{site},
		NotBefore:    until.Add(-90 * 24 * time.Hour),
		NotAfter:     until,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := json.Marshal(certmagic.CertificateResource{SANs: []string{site}})
	if err != nil {
		t.Fatal(err)
	}
	k := certmagic.StorageKeys
	return map[string]string{
		k.SitePrivateKey(issuer, site): string(keyPEM),
		k.SiteCert(issuer, site):       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		k.SiteMeta(issuer, site):       string(meta),
	}
}

// account returns the two records of an ACME account.
func account(t *testing.T, email string) map[string]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	user := "acme/" + issuer + "/users/" + email + "/" + strings.Split(email, "@")[0]
	return map[string]string{user + ".key": string(text), user + ".json": `{"status":"valid"}`}
}

// merge joins maps of records.
func merge(all ...map[string]string) map[string]string {
	sum := make(map[string]string)
	for _, m := range all {
		for k, v := range m {
			sum[k] = v
		}
	}
	return sum
}

// stored returns all that a node has.
func stored(t *testing.T, n *flotilla.Node) map[string]string {
	t.Helper()
	all := make(map[string]string)
	keys, err := n.Storage().List(t.Context(), "", true)
	if err != nil {
		return all
	}
	for _, key := range keys {
		if value, err := n.Storage().Load(t.Context(), key); err == nil {
			all[key] = string(value)
		}
	}
	return all
}

// files returns all files below a directory, and fails if a mode is not what an export makes.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			if info.Mode().Perm() != 0o700 {
				t.Errorf("directory %s has mode %v", path, info.Mode().Perm())
			}
			return nil
		}
		if info.Mode() != 0o600 {
			t.Errorf("file %s has mode %v", path, info.Mode())
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[filepath.ToSlash(name)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
