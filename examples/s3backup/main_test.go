package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/flotilla-ha/flotilla/examples/s3backup/s3store"
)

const (
	bucket      = "backups"
	accessKey   = "test-key-id"
	secretKey   = "test-secret-that-nobody-may-see"
	userKey     = "test-user-id"   // with the same secret; may do what the policy says
	limit       = 30 * time.Second // for what takes a second
	socketName  = "s3"
	serverFiles = "files"
)

// gateway is the S3 server that all tests use.
var gateway struct{ dir string }

// TestMain builds and runs a real S3 server, the Versity S3 Gateway. It is a process of its own,
// which listens on a Unix socket. It ends when this process ends. Tests with -short do not need it.
func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	flag.Set("test.parallel", "8") // most tests wait for a second attempt
	code, err := withServer(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func withServer(run func() int) (code int, err error) {
	dir, err := os.MkdirTemp("", "s3-") // short: the path of a socket has at most 107 bytes
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-C", "testdata/s3server", "-o", filepath.Join(dir, "server"), ".")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building the S3 server: %w\n%s", err, out)
	}
	users := `{"accessAccounts": {"` + userKey + `": {"access": "` + userKey + `", "secret": "` + secretKey + `", "role": "user"}}}`
	if err := os.WriteFile(filepath.Join(dir, "users.json"), []byte(users), 0o600); err != nil {
		return 0, err
	}
	var log bytes.Buffer
	server := exec.Command(filepath.Join(dir, "server"), "-child", "-addr", filepath.Join(dir, socketName),
		"-dir", filepath.Join(dir, serverFiles), "-bucket", bucket, "-users", dir)
	server.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey)
	server.Stdout, server.Stderr = &log, &log
	stdin, err := server.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := server.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	defer func() {
		stdin.Close()
		<-ended
	}()
	gateway.dir = dir
	err = await(context.Background(), func(ctx context.Context) error {
		conn, err := dialGateway(ctx)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("the S3 server does not listen: %w\n%s", err, log.String())
	}
	return run(), nil
}

func dialGateway(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(gateway.dir, socketName))
}

// await calls f every 20 ms until it succeeds.
func await(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("within %v: %w", limit, err)
		}
	}
}

// config returns the configuration of a store behind a front, in a directory that is new.
func config(f *front) s3store.Config {
	roots := x509.NewCertPool()
	roots.AddCert(f.Certificate())
	return s3store.Config{
		Endpoint: f.URL, Bucket: bucket, Prefix: "new/" + rand.Text(), Roots: roots,
		Credentials: credentials.NewStaticV4(accessKey, secretKey, ""),
	}
}

func open(t *testing.T, c s3store.Config) *s3store.Store {
	t.Helper()
	s, err := s3store.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantError checks that an error says all of that, and no secret.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("there is no error with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	wantNoSecret(t, err.Error())
}

func wantNoSecret(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{secretKey, "Signature="} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in: %s", secret, text)
		}
	}
}

// wantNothing checks that the directory of a test has no object, and no parts of any.
func wantNothing(t *testing.T, c s3store.Config) {
	t.Helper()
	names, err := open(t, c).List(t.Context())
	if err != nil || len(names) > 0 {
		t.Errorf("what is stored: %q, %v", names, err)
	}
	if n := incomplete(t, c); n > 0 {
		t.Errorf("there are %d incomplete uploads", n)
	}
}

// incomplete returns the number of incomplete uploads in the directory of a test.
func incomplete(t *testing.T, c s3store.Config) (n int) {
	t.Helper()
	for u := range client(t).ListIncompleteUploads(t.Context(), bucket, c.Prefix+"/", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		n++
	}
	return n
}

// client returns a client of the server itself.
func client(t *testing.T) *minio.Client {
	t.Helper()
	f := newFront(t)
	c, err := minio.New(f.Listener.Addr().String(), &minio.Options{
		Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Secure: true, Region: "us-east-1", Transport: f.Client().Transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var errEarly = errors.New("the backup cannot be made")
