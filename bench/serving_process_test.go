//go:build unix

package bench

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/pires/go-proxyproto"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/bench/internal/proc"
)

const (
	host = "bench.test" // that all servers serve

	// asCert names the directory of the certificate that a server process serves.
	asCert = "BENCH_CERT"

	certFile, keyFile, bothFile, rootFile = "cert.pem", "key.pem", "both.pem", "root.pem"
)

// answer is the handler of all servers.
func answer(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") }

// given is a ready certificate and its key. It is issuer and key source at once, so flotilla serves
// exactly the same as the others.
type given struct{ dir string }

func (g given) IssuerKey() string { return "given" }

func (g given) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	chain, err := os.ReadFile(filepath.Join(g.dir, certFile))
	return &certmagic.IssuedCertificate{Certificate: chain}, err
}

func (g given) GenerateKey() (crypto.PrivateKey, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(g.dir, certFile), filepath.Join(g.dir, keyFile))
	return pair.PrivateKey, err
}

// newGiven makes a root and a certificate for host, both with keys on P-256.
func newGiven(b *testing.B) given {
	b.Helper()
	g := given{b.TempDir()}
	write := func(name string, parts ...[]byte) {
		if err := os.WriteFile(filepath.Join(g.dir, name), bytes.Join(parts, nil), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		return key
	}
	sign := func(cert, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) []byte {
		cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour)
		cert.BasicConstraintsValid = true
		der, err := x509.CreateCertificate(rand.Reader, cert, parent, public, key)
		if err != nil {
			b.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	rootKey, key := newKey(), newKey()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	write(rootFile, sign(root, root, rootKey.Public(), rootKey))
	leaf := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{host}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, root, key.Public(), rootKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	write(certFile, leaf)
	write(keyFile, private)
	write(bothFile, leaf, private)
	return g
}

// client returns the configuration of clients: TLS 1.3, X25519, no resumption.
func (g given) client() (*tls.Config, error) {
	root, err := os.ReadFile(filepath.Join(g.dir, rootFile))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(root) {
		return nil, fmt.Errorf("%s holds no certificate", rootFile)
	}
	return &tls.Config{
		RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
	}, nil
}

// endWithInput ends this process when its parent is gone.
func endWithInput() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(1)
}

// runFlotilla is a node that serves until SIGTERM.
func runFlotilla(ctx context.Context) error {
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	g := given{os.Getenv(asCert)}
	cfg.TLS.Configure = func(c *certmagic.Config, _ *certmagic.ACMEIssuer) {
		c.KeySource, c.Issuers = g, []certmagic.Issuer{g}
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	go endWithInput()
	return flotilla.Serve(ctx, cfg, http.HandlerFunc(answer), host)
}

// runPlain is net/http and crypto/tls with a certificate from files and flotilla's deadlines. It
// reads the same variables as a node.
func runPlain(context.Context) error {
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", cfg.HTTPSAddr)
	if err != nil {
		return err
	}
	if len(cfg.Proxies) > 0 {
		ln = &proxyproto.Listener{
			Listener:          ln,
			ConnPolicy:        func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil },
			ReadHeaderTimeout: 5 * time.Second,
		}
	}
	go endWithInput()
	failed := make(chan error, 2)
	go func() { failed <- http.ListenAndServe(cfg.HealthAddr, http.HandlerFunc(answer)) }()
	srv := &http.Server{
		Handler: http.HandlerFunc(answer), TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	dir := os.Getenv(asCert)
	go func() { failed <- srv.ServeTLS(ln, filepath.Join(dir, certFile), filepath.Join(dir, keyFile)) }()
	return <-failed
}

// server is a process that serves HTTPS.
type server struct {
	*process
	https, health string
}

// newServers starts three servers, "flotilla" or "plain", and waits until they serve. They require
// a PROXY header from proxies, unless that is empty.
func newServers(b *testing.B, role string, g given, proxies string) []*server {
	b.Helper()
	all, addrs := make([]*server, 3), freeAddrs(b, 9)
	for i, p := range newProcesses(b, 3) {
		s := &server{p, addrs[3*i], addrs[3*i+1]}
		p.Env = append(p.Env, proc.RoleVariable+"="+role, asCert+"="+g.dir, "FLOTILLA_PROXIES="+proxies,
			"FLOTILLA_HTTPS_ADDR="+s.https, "FLOTILLA_HEALTH_ADDR="+s.health, "FLOTILLA_HTTP_ADDR="+addrs[3*i+2])
		p.start(b)
		all[i] = s
	}
	for _, s := range all {
		s.await(b, g, proxies != "")
	}
	return all
}

// await waits until a server is ready and serves the certificate.
func (s *server) await(b *testing.B, g given, proxied bool) {
	b.Helper()
	config, err := g.client()
	if err != nil {
		b.Fatal(err)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.https)
		if err == nil && proxied {
			_, err = proxyproto.HeaderProxyFromAddrs(2, conn.LocalAddr(), conn.RemoteAddr()).WriteTo(conn)
		}
		return conn, err
	}
	for deadline := time.Now().Add(readyTimeout); ; time.Sleep(20 * time.Millisecond) {
		if err = isReady(b.Context(), s.health); err == nil {
			if _, err = visit(b.Context(), dial, config); err == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s does not serve: %v", s.https, err)
		}
	}
}

func isReady(ctx context.Context, health string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}

// restart ends the process by SIGTERM, waits for its end, and starts it again. A process that
// drains must end with status 0.
func (s *server) restart(b *testing.B, drains bool) {
	b.Helper()
	running := s.Cmd.Process
	running.Signal(syscall.SIGTERM)
	late := time.AfterFunc(readyTimeout, func() { running.Kill() })
	var said []string
	for s.Out.Scan() {
		said = append(said, s.Out.Text())
	}
	err := s.Wait()
	if late.Stop(); err != nil && drains {
		b.Errorf("%s did not end well: %v; it says: %q", s.https, err, said)
	}
	s.start(b)
}

// Kinds of HAProxy.
const (
	passing     = "passing"     // mode tcp
	proxying    = "proxying"    // mode tcp, with a PROXY header
	terminating = "terminating" // mode http: it ends TLS and encrypts anew, with usual reuse
	pooling     = "pooling"     // the same, and all clients share connections to the servers
)

// untilUp is the time until a balancer notices that a server is ready again: two checks, and a
// little more.
const untilUp = 1500 * time.Millisecond

// balancer is a process of HAProxy in front of servers.
type balancer struct {
	addr string
	pid  int
}

// newBalancer starts an HAProxy that ends with the benchmark.
func newBalancer(b *testing.B, kind string, g given, servers []*server) balancer {
	b.Helper()
	path := needHAProxy(b)
	addr := freeAddrs(b, 1)[0]
	mode, bind, opts, more := "tcp", "", "", ""
	switch kind {
	case proxying:
		opts = " send-proxy-v2"
	case terminating, pooling:
		mode, bind = "http", " ssl crt "+filepath.Join(g.dir, bothFile)+" alpn h2,http/1.1"
		opts = " ssl verify required ca-file " + filepath.Join(g.dir, rootFile) + " sni str(" + host + ") verifyhost " + host
		more = "  http-reuse safe\n"
		if kind == pooling {
			more = "  http-reuse always\n"
		}
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, `global
  maxconn 4000
defaults
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen tls
  mode %s
  bind %s%s
  balance roundrobin
  option redispatch
  retries 2
  option httpchk GET /readyz
  default-server inter 500ms fall 2 rise 2
%s`, mode, addr, bind, more)
	for i, s := range servers {
		_, port, err := net.SplitHostPort(s.health)
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(&conf, "  server n%d %s check port %s%s\n", i, s.https, port, opts)
	}
	dir := b.TempDir()
	file, output := filepath.Join(dir, "haproxy.cfg"), filepath.Join(dir, "haproxy.log")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	// The shell ends it when this process is gone, for any reason.
	cmd := exec.Command("sh", "-c", `"$0" -db -f "$1" >"$2" 2>&1 & echo $!; read x; kill -9 $!; wait`, path, file, output)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	l := balancer{addr: addr}
	if _, err := fmt.Fscan(out, &l.pid); err != nil {
		b.Fatal(err)
	}
	config, err := g.client()
	if err != nil {
		b.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err = visit(b.Context(), l.dial, config); err == nil {
			return l
		}
		if time.Now().After(deadline) {
			said, readErr := os.ReadFile(output)
			b.Fatalf("HAProxy (%s) does not serve: %v; it says: %s %v", kind, err, said, readErr)
		}
	}
}

func (l balancer) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", l.addr)
}

// needHAProxy returns the path of HAProxy, or skips the benchmark.
func needHAProxy(b *testing.B) string {
	b.Helper()
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	b.Skip("haproxy is not installed; on Debian: apt-get install haproxy")
	return ""
}

// cpu returns the processor time that all threads of a process have used so far.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err == nil && len(threads) == 0 {
		err = errors.ErrUnsupported
	}
	if err != nil {
		b.Skipf("the processor time of other processes is read from /proc/PID/task/*/schedstat, as on Linux: %v", err)
	}
	var sum time.Duration
	for _, file := range threads {
		text, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// needFiles skips the benchmark if processes may not have n open files. Go raises the soft limit at
// start.
func needFiles(b *testing.B, n uint64) {
	b.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	if uint64(limit.Max) < n {
		b.Skipf("a process may have %d files open here, and %d are needed: raise the hard limit (ulimit -Hn %d)", limit.Max, n, n)
	}
}
