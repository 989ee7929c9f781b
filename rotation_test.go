package flotilla_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testfiles"
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
	r := newSecrets(t, nodes)
	r.Cluster = clustertest.New(t, nodes, r.configure)
	return r
}

// newSecrets makes the files of the nodes of a cluster that is yet to be made.
func newSecrets(t *testing.T, nodes int) *rotating {
	r := &rotating{t: t, dir: t.TempDir(), old: flotilla.NewSecret(), next: flotilla.NewSecret()}
	for i := range nodes {
		r.give(i, r.old)
	}
	return r
}

func (r *rotating) configure(i int, c *flotilla.Config) { c.Secrets, c.SecretsFile = nil, r.file(i) }

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

// drive asks for steps until the replacement is done or refused. The nodes close the connection of
// the client when they drop its secret, so a request may fail.
func drive(ctx context.Context, t *testing.T, c *remote.Client, q remote.RotateRequest) remote.RotateReply {
	t.Helper()
	for {
		p, err := c.Rotate(ctx, q)
		if err == nil && (p.Done || p.Refused) {
			return p
		}
		if err == nil {
			q.Begun = p.Begun
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("step %d of %d (%s) waits for: %s; %v", p.Step, p.Steps, p.Doing, strings.Join(p.Waiting, "; "), err)
		}
	}
}

// replaceByNext replaces the secret of all nodes by the next one.
func (r *rotating) replaceByNext() {
	r.t.Helper()
	for i := range r.Nodes {
		r.give(i, r.old, r.next)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if p := drive(ctx, r.t, r.client(r.old, r.next), rotateSecret(r.t, r.old, r.next)); !p.Done {
		r.t.Fatal(p.Doing)
	}
}

// filesWith returns the files of nodes that name a key: what a key has sealed names it. No nodes
// stand for all.
func (r *rotating) filesWith(id seal.KeyID, nodes ...int) (paths []string) {
	r.t.Helper()
	for i := range r.Nodes {
		if len(nodes) > 0 && !slices.Contains(nodes, i) {
			continue
		}
		for _, path := range testfiles.With(r.t, r.Config(i).Dir, string(id[:]), id.String()) {
			paths = append(paths, fmt.Sprintf("n%d/%s", i, path))
		}
	}
	return paths
}

// wantGone checks that no file of the nodes names a key. No nodes stand for all.
func (r *rotating) wantGone(id seal.KeyID, nodes ...int) {
	r.t.Helper()
	if paths := r.filesWith(id, nodes...); len(paths) > 0 {
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
		r.replaceByNext()
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

// A node that was away while the secret was replaced twice, and that was removed, comes back with
// the newest secret alone. Its directory is set aside, and it joins as a new node.
func TestAwayWhileSecretIsReplaced(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRotating(t, 4)
		r.Settle()
		store(t, r.Nodes[0], "before", "1")
		away := r.Nodes[3].Status().ID
		r.Kill(3)
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		if a, err := r.client(r.old).Remove(ctx, remote.RemoveRequest{Node: away, Force: true}); err != nil || a.Refused {
			t.Fatal(a.Text, err)
		}
		for range 2 {
			for i := range 3 {
				r.give(i, r.old, r.next)
			}
			if p := drive(ctx, t, r.client(r.old, r.next), rotateSecret(t, r.old, r.next)); !p.Done {
				t.Fatal(p.Doing)
			}
			r.old, r.next = r.next, flotilla.NewSecret()
		}
		other := *r.Config(3)
		other.SecretsFile, other.Secrets = "", []flotilla.Secret{r.next}
		var wrong *flotilla.ConfigError
		if _, err := flotilla.Open(ctx, other); !errors.As(err, &wrong) || wrong.Field != "Secrets" {
			t.Fatalf("with a secret of no cluster: %v", err)
		}
		r.give(3, r.old)
		r.Restart(3)
		r.Settle()
		if s := r.Nodes[3].Status(); s.ID == away || s.SetAside == "" {
			t.Errorf("it is %s, and its state is set aside in %q", s.ID, s.SetAside)
		}
		wantEverywhere(t, r.Cluster, "before", "1")
	})
}

// A node was cut off, and not stopped, while the secret was replaced and the node removed. It gets
// the new secret while it runs, with or without the former one. It gives up, says that it has to be
// started again, and then joins as a new node.
func TestCutOffWhileSecretIsReplaced(t *testing.T) {
	flotilla.SkipShort(t)
	for _, both := range []bool{false, true} {
		t.Run(fmt.Sprintf("both=%v", both), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRotating(t, 4)
				r.Settle()
				store(t, r.Nodes[0], "before", "1")
				away := r.Nodes[3].Status().ID
				r.Isolate(3)
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				if a, err := r.client(r.old).Remove(ctx, remote.RemoveRequest{Node: away, Force: true}); err != nil || a.Refused {
					t.Fatal(a.Text, err)
				}
				for i := range 3 {
					r.give(i, r.old, r.next)
				}
				if p := drive(ctx, t, r.client(r.old, r.next), rotateSecret(t, r.old, r.next)); !p.Done {
					t.Fatal(p.Doing)
				}
				if r.give(3, r.next); both {
					r.give(3, r.old, r.next)
				}
				r.Heal()
				time.Sleep(10 * time.Second)
				wantFailure(t, r.Nodes[3], "start it again: its state is then set aside in")
				if err := r.Nodes[3].Ready(t.Context()); !errors.Is(err, flotilla.ErrRemoved) {
					t.Errorf("Ready says %v", err)
				}
				r.Kill(3)
				r.Restart(3)
				r.Settle()
				if s := r.Nodes[3].Status(); s.ID == away || s.SetAside == "" {
					t.Errorf("it is %s, and its state is set aside in %q", s.ID, s.SetAside)
				}
				wantEverywhere(t, r.Cluster, "before", "1")
			})
		})
	}
}

// The guard of an address has a death notice of the new secret, so that the death of its program is
// noticed at once.
func TestDeathNoticeAfterSecretIsReplaced(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		r := newSecrets(t, 3)
		f := newAddressFleet(t, 1, 3, 1, nil, r.configure)
		r.Cluster = f.c
		leader := f.c.Leader()
		owner := (leader + 1) % 3
		f.run(owner)
		f.settled(time.Minute)
		f.run((leader + 2) % 3)
		f.run(leader)
		r.replaceByNext()
		time.Sleep(5 * time.Second)
		if f.owner(0) != owner || f.c.Leader() != leader {
			t.Fatalf("n%d owns the address and n%d leads, want n%d and n%d", f.owner(0), f.c.Leader(), owner, leader)
		}
		f.kill(owner, true)
		f.await("another owner", time.Minute, func() bool { return f.owner(0) >= 0 && f.owner(0) != owner })
		time.Sleep(10 * time.Millisecond)
		gaps := f.link.Gaps(f.addrs[0].Addr())
		if last := gaps[len(gaps)-1]; last > 30*time.Millisecond {
			t.Errorf("nobody answered for %v: the death notice was of no use", last)
		}
	})
}

// Automatic backups go on with the new secret.
func TestBackupsAfterSecretIsReplaced(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		r, dir := newSecrets(t, 3), t.TempDir()
		r.Cluster = clustertest.New(t, 3, func(i int, c *flotilla.Config) {
			r.configure(i, c)
			c.Backups = flotilla.Backups{Dir: dir, Every: 10 * time.Minute}
			c.Timing = flotilla.WAN // less traffic meanwhile
		})
		r.Settle()
		r.replaceByNext()
		time.Sleep(11 * time.Minute)
		b := r.Nodes[0].Status().Backup
		if b == nil || b.Err != "" || b.Late(time.Now()) {
			t.Fatalf("the last backup is %+v", b)
		}
		sealed, err := os.ReadFile(filepath.Join(dir, b.Name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := flotilla.VerifyBackup(bytes.NewReader(sealed), r.next); err != nil {
			t.Error(err)
		}
	})
}

// While the secret is being replaced, a node joins only with what it needs: a secret that opens
// what the members have, and the new one, for which the last step would wait.
func TestJoinWhileSecretIsReplaced(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRotating(t, 3)
		r.Settle()
		for i := range r.Nodes {
			r.give(i, r.old, r.next)
		}
		lacks := func(secret flotilla.Secret) {
			t.Helper()
			time.Sleep(5 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			why := "this node lacks the secret " + raw(t, secret)[0].ID().String()
			if err := r.Nodes[3].Ready(ctx); err == nil || !strings.Contains(err.Error(), why) {
				t.Fatalf("it should say that %s: %v", why, err)
			}
		}
		time.Sleep(3 * time.Second)
		r.give(3, r.next)
		r.Add(r.configure)
		lacks(r.old)
		c, q := r.client(r.old, r.next), rotateSecret(t, r.old, r.next)
		for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			p, err := c.Rotate(t.Context(), q)
			if err != nil || time.Since(began) > 10*time.Second {
				t.Fatal(p, err)
			}
			if p.Step == 2 {
				break
			}
		}
		lacks(r.old)
		r.Kill(3)
		r.give(3, r.old)
		r.Restart(3)
		lacks(r.next)
		r.give(3, r.old, r.next)
		r.Settle()
		all, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		if p := drive(all, t, c, q); !p.Done {
			t.Fatal(p.Doing)
		}
	})
}
