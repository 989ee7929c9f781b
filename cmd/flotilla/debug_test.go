package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/bundle"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/redact"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// contents returns the files of an archive. An archive among them is opened too.
func contents(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(content, []byte{0x1f, 0x8b}) {
			for name, inner := range contents(t, content) {
				all[path.Join(h.Name, name)] = inner
			}
			continue
		}
		all[h.Name] = string(content)
	}
}

// wrapped breaks a text into lines, as mail and terminals do.
func wrapped(text string) string {
	var lines []string
	for part := range slices.Chunk([]byte(text), 11) {
		lines = append(lines, string(part))
	}
	return strings.Join(lines, "\n")
}

// TestDebugHasNoSecrets plants canaries wherever a cluster and its operator keep secrets, and in
// texts that a node shows, and finds none of them in the archive.
func TestDebugHasNoSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := new(canaries)
		ca := "https://ca.test/dir?eab=" + c.add("query of a URL")
		slips := make(chan string, 100) // texts of errors that a node gets from its program, and logs
		cluster := clustertest.New(t, 3, func(i int, cfg *flotilla.Config) {
			cfg.TLS.CA = ca
			if i != 2 {
				return
			}
			cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
			find := cfg.Peers
			cfg.Peers = func(ctx context.Context) ([]string, error) {
				found, err := find(ctx)
				select {
				case text := <-slips:
					err = errors.New(text)
				default:
				}
				return found, err
			}
		})
		cluster.Settle()
		time.Sleep(20 * time.Second)
		node := cluster.Nodes[0]
		for key, value := range c.records() {
			if err := node.Storage().Store(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		raw, secret := c.knowSecret(t, cluster)
		texts := c.texts(raw, secret)
		for i, text := range texts {
			node.Remark(fmt.Sprint("role", i), text)
		}
		errs := 0
		for some := range slices.Chunk(texts, 3) {
			slips <- strings.Join(some, "\n")
			errs++
		}
		cluster.Isolate(2) // it looks for peers again and again
		for len(slips) > 0 {
			time.Sleep(time.Second)
		}
		cluster.Heal()
		cluster.Settle()
		o := operatorOf(cluster)
		env := environment(cluster, cluster.Config(0).Secrets[0].Encode())
		for name, value := range c.environment(ca) {
			env[name] = value
		}
		o.getenv = func(name string) string { return env[name] }
		if n := len(c.all); n != 63 {
			t.Errorf("there are %d canaries, want 63", n)
		}
		got := o.run(t.Context(), "debug", "-out", "-")
		got.want(t, 0, "has the reports of 3 of 3 nodes")
		files := contents(t, []byte(got.out))
		for _, text := range c.found(files) {
			t.Errorf("found in %s", text)
		}
		if c.found(map[string]string{"stderr": got.errOut}) != nil {
			t.Errorf("it prints a secret: %s", got.errOut)
		}
		wantFiles(t, files)
		logged := 0
		for name, content := range files {
			if strings.HasSuffix(name, "/log.jsonl") {
				logged += strings.Count(content, `"msg":"looking for peers failed; it is tried again"`)
			}
		}
		if logged != errs {
			t.Errorf("%d of %d errors are in the log", logged, errs)
		}
	})
}

// texts are texts that a node shows, with secrets that slipped into them.
func (c *canaries) texts(raw []byte, text string) []string {
	var all []string
	for _, form := range []string{
		string(raw), hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)), base64.StdEncoding.EncodeToString(raw),
		base64.URLEncoding.EncodeToString(raw), text, strings.ToUpper(text),
	} {
		all = append(all, "cannot open "+form+" now", "cannot open\n"+wrapped(form)+"\nnow", "cannot open "+strings.ReplaceAll(wrapped(form), "\n", "\r\n\t")+".")
	}
	all = append(all, text[:30], "in the middle"+text+"of a word")
	for _, before := range []string{
		"Authorization: Bearer ", "authorization: basic ", "password=", "PASSWORD: ", "api_key=", "API-Key: ", "aws_secret_access_key = ",
		"accessKey\":\"", "hmac=", "eab_hmac: ", "session_token=", "client_secret='", "passphrase: ", "X-Auth-Token: ", "private_key=",
	} {
		all = append(all, "the authority says: "+before+c.add("behind "+before)+" is wrong")
	}
	all = append(all,
		"-----BEGIN PRIVATE KEY-----\n"+wrapped(base64.StdEncoding.EncodeToString([]byte(c.add("a key in a text"))))+"\n-----END PRIVATE KEY-----",
		"-----BEGIN RSA PRIVATE KEY-----\n"+base64.StdEncoding.EncodeToString([]byte(c.add("a key that was cut"))),
		"dial https://"+c.add("user of a URL")+"@db.test/app: refused",
		"dial postgres://app:"+c.add("password of a database")+"@db.test/app: refused",
		"get https://store.test/b?X-Amz-Signature="+c.add("a signed URL")+"&x=1: 403",
		"a random word, "+hex.EncodeToString([]byte(c.add("a long word"))),
		"another, "+base64.RawURLEncoding.EncodeToString([]byte(c.add("a long word in base64"))),
	)
	return all
}

// environment returns variables, with a canary in each that may hold one.
func (c *canaries) environment(ca string) map[string]string {
	all := map[string]string{"FLOTILLA_ACME_CA": ca, "FLOTILLA_TIMING": "lan"}
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CLOUDFLARE_API_TOKEN", "HCLOUD_TOKEN", "VAULT_TOKEN",
		"GITHUB_TOKEN", "DATABASE_URL", "ACME_EAB_HMAC", "SMTP_PASSWORD", "HTTPS_PROXY", "FLOTILLA_SECRET", "FLOTILLA_TOKEN", "FLOTILLA_EMAIL", "FLOTILLA_HEALTH_TOKEN",
	} {
		all[name] = c.add("the variable " + name)
	}
	return all
}

// wantFiles checks that the archive has what an archive is for.
func wantFiles(t *testing.T, files map[string]string) {
	t.Helper()
	find := func(suffix string) (names []string) {
		for name := range files {
			if strings.HasSuffix(name, suffix) {
				names = append(names, name)
			}
		}
		return names
	}
	for suffix, n := range map[string]int{
		"/report.json": 3, "/goroutines.txt": 3, "/log.jsonl": 3, "/status.json": 3, "/summary.json": 1, "/environment.json": 1, "/status.txt": 1, "/health.txt": 1,
	} {
		if names := find(suffix); len(names) != n {
			t.Errorf("there are %d files %s, want %d", len(names), suffix, n)
		}
	}
	for suffix, part := range map[string]string{
		"/report.json": `"Timing": "lan"`, "/goroutines.txt": "goroutine ", "/log.jsonl": `"msg":"taking part in a new cluster"`, "/status.json": `"Leader": "`, "/summary.json": `"Name": "n2"`,
		"/environment.json": `"FLOTILLA_SECRETS": "(set)"`, "/status.txt": "voters there: 3 of 3", "/health.txt": "n1: ",
	} {
		for _, name := range find(suffix) {
			if !strings.Contains(files[name], part) {
				t.Errorf("%s does not say %q:\n%.2000s", name, part, files[name])
			}
			if strings.HasSuffix(name, ".json") && !json.Valid([]byte(files[name])) {
				t.Errorf("%s is no JSON", name)
			}
		}
	}
	for _, name := range find("/status.json") {
		if strings.Contains(name, "/n0-") && !strings.Contains(files[name], "cannot open "+redact.Mark+" now") {
			t.Errorf("the texts with secrets are not in %s, so nothing was taken out:\n%.3000s", name, files[name])
		}
	}
}

// The search for canaries finds each of them, in each form.
func TestCanariesAreFound(t *testing.T) {
	c := new(canaries)
	c.add("a")
	c.know("b", bytes.Repeat([]byte{0xfe, 1, 2, 0x80}, 8))
	for _, k := range c.all {
		for form, text := range forms(k.secret) {
			var inner, outer bytes.Buffer
			a := bundle.New(&inner, "in", time.Unix(0, 0), redact.New(nil, nil))
			if err := errors.Join(a.Stacks("x", []byte(wrapped(text))), a.Close()); err != nil {
				t.Fatal(err)
			}
			b := bundle.New(&outer, "out", time.Unix(0, 0), redact.New(nil, nil))
			if err := errors.Join(b.Stacks("y.tar.gz", inner.Bytes()), b.Close()); err != nil {
				t.Fatal(err)
			}
			if found := c.found(contents(t, outer.Bytes())); len(found) == 0 {
				t.Errorf("%s is not found as %s", k.where, form)
			}
		}
	}
}

// The archive lists every variable that nodes read.
func TestNodeVariables(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile("`(FLOTILLA_[A-Z_]+)`").FindAllStringSubmatch(string(text), -1) {
		guard := name[1] == "FLOTILLA_GUARD_PROCESS" // a node sets it itself
		if !guard && !slices.Contains(nodeVariables(), name[1]) {
			t.Errorf("%s is not listed", name[1])
		}
	}
	for _, name := range nodeVariables() {
		t.Setenv(name, "")
	}
	if _, err := flotilla.ConfigFromEnv(); err != nil {
		t.Errorf("a variable that no node reads is listed: %v", err)
	}
}
