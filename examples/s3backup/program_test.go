package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
)

// wantEmpty checks that nothing is in a directory.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%s has %v, %v", dir, entries, err)
	}
}

// server is the program while it serves.
type server struct {
	addr   string
	client http.Client
	stop   func()
}

// startServer runs the program with a data directory, and waits until it answers with a certificate
// of the cluster.
func startServer(t *testing.T, dir string, secret flotilla.Secret, backups flotilla.Backups) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ports := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, flotilla.Config{
			Dir: dir, Addr: "127.0.0.1:0", Secrets: []flotilla.Secret{secret}, Logger: slog.New(slog.DiscardHandler),
			Backups: backups, HTTPSAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Drain: flotilla.Drain{Grace: -1},
			Server: &http.Server{BaseContext: func(l net.Listener) context.Context {
				ports <- l.Addr().String()
				return context.Background()
			}},
		}, nil)
	}()
	s := &server{client: http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}}}}
	select {
	case s.addr = <-ports:
	case err := <-ended:
		t.Fatalf("the server has ended: %v", err)
	}
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ends with %v", err)
		}
		s.client.CloseIdleConnections()
	}
	t.Cleanup(cancel)
	err := await(ctx, func(context.Context) error {
		_, state, err := s.do(t, http.MethodGet, "/", "")
		if err != nil {
			return err
		}
		s.client.CloseIdleConnections()
		if c := state.PeerCertificates[0]; c.Issuer.String() == c.Subject.String() {
			return errors.New("the server has only a self-signed certificate")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) do(t *testing.T, method, path, body string) (string, *tls.ConnectionState, error) {
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		return "", nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return string(text), resp.TLS, err
}

func (s *server) put(t *testing.T, name, text string) error {
	_, _, err := s.do(t, http.MethodPut, "/notes/"+name, text)
	return err
}

// want checks a note, and returns the serial number of the certificate.
func (s *server) want(t *testing.T, name, text string) string {
	t.Helper()
	got, state, err := s.do(t, http.MethodGet, "/notes/"+name, "")
	if err != nil || got != text {
		t.Fatalf("the note %s is %q, %v", name, got, err)
	}
	return state.PeerCertificates[0].SerialNumber.String()
}

// The program serves, and its cluster is backed up. Later the backup is listed, fetched and
// restored, and the program serves the same with it: its notes, and its certificate.
func TestProgram(t *testing.T) {
	f := newFront(t)
	c := config(f)
	store, secret := open(t, c), flotilla.NewSecret()
	work := t.TempDir()
	ca := filepath.Join(work, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"FLOTILLA_SECRETS": secret.Encode(), "S3_ENDPOINT": f.URL, "S3_BUCKET": c.Bucket, "S3_PREFIX": c.Prefix, "S3_CA_FILE": ca,
		"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey,
	} {
		t.Setenv(name, value)
	}
	command := func(args ...string) (string, error) {
		var out strings.Builder
		err := run(t.Context(), args, &out)
		return out.String(), err
	}

	// The first backup is made at once. So the note is stored before there are backups.
	s := startServer(t, filepath.Join(work, "one"), secret, flotilla.Backups{})
	if err := s.put(t, "song", "Sailing"); err != nil {
		t.Fatal(err)
	}
	serial := s.want(t, "song", "Sailing")
	s.stop()
	s = startServer(t, filepath.Join(work, "one"), secret, flotilla.Backups{Store: store})
	var name string
	err := await(t.Context(), func(context.Context) error {
		status, _, err := s.do(t, http.MethodGet, "/", "")
		if err == nil && !strings.Contains(status, "backup") {
			err = errors.New(status)
		}
		listed, lerr := command("list")
		if name = strings.TrimSpace(listed); name == "" && lerr == nil {
			lerr = errors.New("no backup is listed")
		}
		return errors.Join(err, lerr)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := os.RemoveAll(filepath.Join(work, "one")); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(work, "x.backup")
	if out, err := command("fetch", name, file); err != nil || !strings.Contains(out, "verified, and stored as "+file) {
		t.Errorf("fetch prints %q, %v", out, err)
	}
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if info, err := flotilla.VerifyBackup(r, secret); err != nil || info.Certificates != 1 {
		t.Errorf("the file holds %+v, %v", info, err)
	}
	_, err = command("fetch", name, file)
	wantError(t, err, file+" exists")

	// With another secret nobody can do anything with it. The error names the right one.
	t.Setenv("FLOTILLA_SECRETS", flotilla.NewSecret().Encode())
	elsewhere := t.TempDir()
	for _, args := range [][]string{{"fetch", name, filepath.Join(elsewhere, "y")}, {"restore", name, filepath.Join(elsewhere, "z")}} {
		_, err := command(args...)
		if !errors.Is(err, flotilla.ErrSealed) {
			t.Errorf("%q with another secret: %v", args, err)
		}
		wantError(t, err, strings.TrimSuffix(strings.TrimPrefix(secret.String(), "secret("), ")"))
	}
	wantEmpty(t, elsewhere)
	t.Setenv("FLOTILLA_SECRETS", secret.Encode())

	dir := filepath.Join(work, "two")
	if out, err := command("restore", name, dir); err != nil || !strings.Contains(out, "restored into "+dir) {
		t.Errorf("restore prints %q, %v", out, err)
	}
	s = startServer(t, dir, secret, flotilla.Backups{Store: store})
	if got := s.want(t, "song", "Sailing"); got != serial {
		t.Errorf("the certificate is %s, and it was %s", got, serial)
	}
	s.stop()
}

// Wrong arguments and variables are errors that say what is right.
func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args []string
		env  map[string]string
		want string
	}{
		{nil, nil, usage},
		{[]string{"store"}, nil, usage},
		{[]string{"list", "x"}, nil, usage},
		{[]string{"fetch", "x"}, nil, usage},
		{[]string{"list"}, map[string]string{"S3_ENDPOINT": ""}, "Endpoint (S3_ENDPOINT) is missing"},
		{[]string{"list"}, map[string]string{"S3_CA_FILE": "/no/such/file"}, "S3_CA_FILE names a file that cannot be read"},
		{[]string{"list"}, map[string]string{"AWS_SECRET_ACCESS_KEY": ""}, "there are no credentials: set AWS_ACCESS_KEY_ID"},
		{[]string{"serve"}, nil, "set FLOTILLA_SECRETS or FLOTILLA_SECRETS_FILE"},
		{[]string{"fetch", "x", "y"}, nil, "set FLOTILLA_SECRETS or FLOTILLA_SECRETS_FILE"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			for name, value := range map[string]string{
				"S3_ENDPOINT": "s3.example", "S3_BUCKET": bucket, "S3_CA_FILE": "", "AWS_SHARED_CREDENTIALS_FILE": "/no/such/file",
				"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey,
			} {
				t.Setenv(name, value)
			}
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			wantError(t, run(t.Context(), test.args, io.Discard), test.want)
		})
	}
}
