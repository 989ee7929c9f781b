package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
)

// operator is a person who runs the command.
type operator struct {
	stdin  string
	getenv func(string) string
	watch  bool // the person watches: both outputs are terminals
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// said is what a run of the command has said.
type said struct {
	code        int
	out, errOut string
}

// run runs the command until it ends, or interrupts it when ctx ends.
func (o *operator) run(ctx context.Context, args ...string) said {
	var out, errOut bytes.Buffer
	env := &cli.Env{
		Stdin:    strings.NewReader(o.stdin),
		Stdout:   &out,
		Stderr:   &errOut,
		Getenv:   o.getenv,
		Screen:   o.watch,
		Progress: o.watch,
		Dial:     o.dial,
	}
	return said{commands().Run(ctx, env, args), out.String(), errOut.String()}
}

// operatorOf is an operator who can reach all nodes of a cluster.
func operatorOf(c *clustertest.Cluster) *operator {
	env := environment(c, c.Config(0).Secrets[0].Encode())
	return &operator{getenv: func(name string) string { return env[name] }, dial: c.Config(0).PeerDial}
}

// environment returns the variables that lead to a cluster.
func environment(c *clustertest.Cluster, secret string) map[string]string {
	var addrs []string
	for i := range c.Nodes {
		addrs = append(addrs, c.Config(i).Name+":7373")
	}
	return map[string]string{
		"FLOTILLA_SECRETS": secret,
		"FLOTILLA_PEERS":   strings.Join(addrs, ","),
	}
}

// want checks how a run has ended, and that it has said all parts.
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

// writeFiles creates files below a directory.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// stored returns all records that a node has. A node that answers nothing has none.
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
