package flotilla_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// rotating is a cluster whose nodes read their secrets from files.
type rotating struct {
	*clustertest.Cluster
	t    *testing.T
	dir  string
	old  flotilla.Secret
	next flotilla.Secret
}

func newRotating(t *testing.T, nodes int) *rotating {
	r := &rotating{t: t, dir: t.TempDir(), old: flotilla.NewSecret(), next: flotilla.NewSecret()}
	for i := range nodes {
		r.give(i, r.old)
	}
	r.Cluster = clustertest.New(t, nodes, func(i int, c *flotilla.Config) {
		c.Secrets, c.SecretsFile = nil, r.file(i)
	})
	return r
}

func (r *rotating) file(i int) string { return filepath.Join(r.dir, fmt.Sprint("n", i)) }

// give writes the file of secrets of a node.
func (r *rotating) give(i int, secrets ...flotilla.Secret) {
	r.t.Helper()
	var lines []string
	for _, s := range secrets {
		lines = append(lines, s.Encode())
	}
	if err := os.WriteFile(r.file(i), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// client returns an operator's client with those secrets.
func (r *rotating) client(secrets ...flotilla.Secret) *remote.Client {
	r.t.Helper()
	c, err := remote.Open(remote.Config{
		Secrets: raw(r.t, secrets...), Peers: flotilla.Static("n0:7373", "n1:7373", "n2:7373"), Dial: r.Config(0).PeerDial,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func raw(t *testing.T, secrets ...flotilla.Secret) (all []seal.Secret) {
	t.Helper()
	for _, s := range secrets {
		one, err := seal.ParseSecret(s.Encode())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

// drive asks for steps until the replacement is done or refused.
func drive(ctx context.Context, t *testing.T, c *remote.Client, q remote.RotateRequest) remote.RotateReply {
	t.Helper()
	for {
		p, err := c.Rotate(ctx, q)
		if err != nil {
			t.Fatalf("step %d: %v", p.Step, err)
		}
		if p.Done || p.Refused {
			return p
		}
		q.Begun = p.Begun
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("step %d of %d (%s) waits for: %s", p.Step, p.Steps, p.Doing, strings.Join(p.Waiting, "; "))
		}
	}
}

// filesWith returns the files of all nodes that name a key: what a key has sealed names it.
func (r *rotating) filesWith(id seal.KeyID) (paths []string) {
	r.t.Helper()
	for i := range r.Nodes {
		err := filepath.WalkDir(r.Config(i).Dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, id[:]) || strings.Contains(string(b), id.String()) {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			r.t.Error(err)
		}
	}
	return paths
}

// wantGone checks that no file of any node names a key.
func (r *rotating) wantGone(id seal.KeyID) {
	r.t.Helper()
	if paths := r.filesWith(id); len(paths) > 0 {
		r.t.Errorf("%v still name %v", paths, id)
	}
}

// wantRefused checks that no node talks to a client, because of its secret.
func (r *rotating) wantRefused(c *remote.Client) {
	r.t.Helper()
	_, err := c.Status(r.t.Context(), "")
	var wrong *wire.WrongSecretError
	if !errors.As(err, &wrong) {
		r.t.Errorf("a client with a dropped secret gets: %v", err)
	}
}

func rotateSecret(t *testing.T, secrets ...flotilla.Secret) remote.RotateRequest {
	t.Helper()
	q := remote.RotateRequest{What: remote.RotateSecret}
	for _, s := range raw(t, secrets...) {
		q.Have = append(q.Have, s.ID())
	}
	return q
}

func TestRotateSecret(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRotating(t, 3)
		r.Settle()
		store(t, r.Nodes[0], "before", "1")
		if len(r.filesWith(raw(t, r.old)[0].ID())) == 0 {
			t.Fatal("no file names the secret; the test shows nothing")
		}
		for i := range r.Nodes {
			r.give(i, r.old, r.next)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if p := drive(ctx, t, r.client(r.old, r.next), rotateSecret(t, r.old, r.next)); !p.Done {
			t.Fatal(p.Doing)
		}
		r.wantGone(raw(t, r.old)[0].ID())
		r.wantRefused(r.client(r.old))
		for i := range r.Nodes {
			r.give(i, r.next)
		}
		for i := range r.Nodes {
			r.Kill(i)
			r.Restart(i)
			r.Settle()
		}
		wantEverywhere(t, r.Cluster, "before", "1")
		store(t, r.Nodes[1], "after", "1")
		wantEverywhere(t, r.Cluster, "after", "1")
	})
}

// Another data key seals everything, and nothing names the former one any more.
func TestRotateData(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRotating(t, 3)
		r.Settle()
		store(t, r.Nodes[0], "before", "1")
		former := flotilla.DataKey(r.Nodes[0])
		if len(r.filesWith(former)) == 0 {
			t.Fatal("no file names the data key; the test shows nothing")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, q := r.client(r.old), remote.RotateRequest{What: remote.RotateData}
		for range 2 {
			// The former key has sealed the last entry of every log, so no disk is clean before another
			// entry follows. The second request sees to that.
			p, err := c.Rotate(ctx, q)
			if err != nil || p.Step != 1 || len(p.Waiting) != 3 {
				t.Fatalf("it waits for %q in step %d: %v", p.Waiting, p.Step, err)
			}
			q.Begun = p.Begun
			time.Sleep(5 * time.Second)
		}
		if p := drive(ctx, t, c, q); !p.Done {
			t.Fatal(p.Doing)
		}
		if now := flotilla.DataKey(r.Nodes[0]); now == former {
			t.Fatal("the data key is the same")
		}
		r.wantGone(former)
		store(t, r.Nodes[2], "after", "1")
		for i := range r.Nodes {
			r.Kill(i)
			r.Restart(i)
			r.Settle()
		}
		wantEverywhere(t, r.Cluster, "before", "1")
		wantEverywhere(t, r.Cluster, "after", "1")
	})
}
