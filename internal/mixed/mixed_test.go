//go:build unix

package main

import (
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var long = flag.Bool("long", false, "go through all cases")

// A cluster is upgraded from the previous release while it serves, downgraded, and upgraded again.
// The usual form has the last step: one node is upgraded. No request fails, and no node.
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, name := range []string{"git", "tar"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%v: the previous release cannot be built", err)
		}
	}
	root, err := repository(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := build(t.Context(), root, root, dir)
	if errors.Is(err, errNoHistory) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	upgrade := inTurn
	if !*long {
		t.Log("one node is upgraded; -long upgrades all of them, downgrades them, and begins again")
		upgrade = fromMix
	}
	r := newReport(t.Output())
	if err := upgrade(t.Context(), p, filepath.Join(dir, "nodes"), r); err != nil {
		t.Error(err)
	}
	t.Log(r.summary())
	if n := r.failed(); n > 0 {
		t.Errorf("%d things have happened that must not", n)
	}
	if r.requests == 0 {
		t.Error("no request was made: this shows nothing")
	}
}

// A node that is ready and lacks a record has failed. The client does not try the next one.
func TestMissingRecord(t *testing.T) {
	w := worker{domain: domain, report: newReport(io.Discard)}
	for _, h := range []http.Handler{http.NotFoundHandler(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") })} {
		srv := httptest.NewTLSServer(h)
		defer srv.Close()
		w.nodes = append(w.nodes, clientOf(srv.Listener.Addr().String(), "example.com"))
	}
	if got, tries, err := w.ask(t.Context(), http.MethodGet, "a", ""); got != "" || tries != 1 || err != nil {
		t.Errorf("it reads %q after asking %d nodes: %v", got, tries, err)
	}
}

// The log of a node is searched for errors.
func TestReadErrors(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       int
	}{
		{"nothing", "", 0},
		{"a warning", "level=WARN msg=x\n", 0},
		{"an error", "level=INFO msg=x\nlevel=ERROR msg=y\n", 1},
		{"a refusal", `level=ERROR msg="this node has failed" err="the node at a refuses this node: the cluster has version 2"` + "\n", 0},
		{"a slow disk", `level=ERROR msg="the disk hangs: this node renews no lease"` + "\n", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			r := newReport(&out)
			if err := r.readErrors(path); err != nil || r.failed() != test.want {
				t.Errorf("%d errors are found, want %d: %v\n%s", r.failed(), test.want, err, out.String())
			}
		})
	}
}
