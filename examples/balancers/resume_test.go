package balancers

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Clients resume their TLS sessions at every node that HAProxy sends them to.
func TestResumption(t *testing.T) {
	cl := startCluster(t, "")
	for _, tt := range []struct {
		client   string
		versions []string
		ask      func(t *testing.T, version string, n int) []answer
		n        int
	}{
		{"crypto/tls", []string{"1.2", "1.3"}, cl.resumeGo, 300},
		{"curl", []string{"1.3"}, cl.resumeCurl, 100}, // with TLS 1.2 it accepts no tickets
		{"openssl", []string{"1.2", "1.3"}, cl.resumeOpenSSL, 20},
	} {
		for _, version := range tt.versions {
			t.Run(tt.client+" "+version, func(t *testing.T) {
				if tt.client != "crypto/tls" {
					need(t, tt.client)
				}
				nodes, resumed := make(map[string]int), 0
				answers := tt.ask(t, version, tt.n+1)
				if len(answers) != tt.n+1 {
					t.Fatalf("%d answers, want %d", len(answers), tt.n+1)
				}
				for _, a := range answers[1:] { // the first cannot resume
					nodes[a.Node]++
					if a.Resumed {
						resumed++
					}
					if a.TLS != "TLS "+version {
						t.Fatalf("spoke %s", a.TLS)
					}
				}
				t.Logf("%d of %d resumed, at %v", resumed, tt.n, nodes)
				if resumed*100 < tt.n*99 {
					t.Errorf("%d of %d connections resumed a session, want 99 %%", resumed, tt.n)
				}
				if len(nodes) != len(cl.nodes) {
					t.Errorf("only %v have answered", nodes)
				}
			})
		}
	}
}

func (cl *cluster) resumeGo(t *testing.T, version string, n int) (answers []answer) {
	c := cl.client(cl.haproxy(), fresh)
	transport := c.Transport.(*http.Transport)
	transport.DisableKeepAlives = true
	transport.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	if version == "1.2" {
		transport.TLSClientConfig.MaxVersion = tls.VersionTLS12
	}
	for range n {
		a, err := ask(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	return answers
}

// resumeCurl makes all connections by one curl, which keeps sessions while it runs.
func (cl *cluster) resumeCurl(t *testing.T, version string, n int) []answer {
	args := []string{"--http1.1", "--header", "Connection: close", "--tlsv" + version, "--tls-max", version}
	for range n {
		args = append(args, "https://"+domain+"/")
	}
	out, err := cl.curl(t.Context(), cl.haproxy(), args...).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return decode(t, out)
}

// resumeOpenSSL runs openssl once for each connection. The sessions are in a file.
func (cl *cluster) resumeOpenSSL(t *testing.T, version string, n int) (answers []answer) {
	session := filepath.Join(t.TempDir(), "session")
	request := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", domain)
	for i := range n {
		args := []string{
			"s_client", "-connect", cl.haproxy().addr, "-servername", domain, "-CAfile", cl.rootCA, "-verify_return_error",
			"-tls" + strings.ReplaceAll(version, ".", "_"), "-quiet", "-sess_out", session,
		}
		if i > 0 {
			args = append(args, "-sess_in", session)
		}
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		cmd := exec.CommandContext(ctx, "openssl", args...)
		cmd.Stdin = strings.NewReader(request)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		cancel()
		_, body, found := bytes.Cut(out, []byte("\r\n\r\n"))
		if err != nil || !found {
			t.Fatalf("%v: %s%s", err, out, stderr.Bytes())
		}
		answers = append(answers, decode(t, body)...)
	}
	return answers
}

// decode reads a sequence of answers.
func decode(t *testing.T, text []byte) (answers []answer) {
	t.Helper()
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var a answer
		if err := d.Decode(&a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	return answers
}
