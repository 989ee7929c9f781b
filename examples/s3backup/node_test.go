package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/s3backup/s3store"
)

// logs is the log of a node.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startNode starts a node that keeps its backups in a store. Its log has no secret in the end.
func startNode(t *testing.T, store flotilla.BackupStore, keep int, secrets ...flotilla.Secret) *flotilla.Node {
	t.Helper()
	log := &logs{}
	n, err := flotilla.Open(t.Context(), flotilla.Config{
		Dir: t.TempDir(), Addr: "127.0.0.1:0", Secrets: secrets, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Backups: flotilla.Backups{Store: store, Every: time.Hour, Keep: keep},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		wantNoSecret(t, log.String())
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return n
}

// former is a store in which the same cluster has stored backups before. removed gets the names of
// those that are removed.
type former struct {
	flotilla.BackupStore
	removed chan string
}

// formerName is the name of the backup that was made so many days before another one.
func formerName(name string, days int) (string, error) {
	const form = "20060102-150405.backup"
	at := len(name) - len(form)
	made, err := time.Parse(form, name[max(at, 0):])
	return name[:max(at, 0)] + made.AddDate(0, 0, -days).Format(form), err
}

// Save implements flotilla.BackupStore.
func (f former) Save(ctx context.Context, name string, write func(io.Writer) error) error {
	var backup bytes.Buffer
	if err := write(&backup); err != nil {
		return err
	}
	save := func(name string, content []byte) error {
		return f.BackupStore.Save(ctx, name, func(w io.Writer) error {
			_, err := w.Write(content)
			return err
		})
	}
	for days := range 4 {
		old, err := formerName(name, 1+days)
		if err == nil {
			err = save(old, backup.Bytes())
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(save("notes.txt", []byte("this is no backup")), save(name, backup.Bytes()))
}

// Remove implements flotilla.BackupStore.
func (f former) Remove(ctx context.Context, name string) error {
	err := f.BackupStore.Remove(ctx, name)
	f.removed <- name
	return err
}

// A node stores its backup, reads it back, says so in its status, and removes old ones. Nobody
// opens the backup without the secret.
func TestNode(t *testing.T) {
	t.Parallel()
	c := config(newFront(t))
	store, secret := open(t, c), flotilla.NewSecret()
	removed := make(chan string, 10)
	n := startNode(t, former{store, removed}, 3, secret)
	var last flotilla.BackupStatus
	for s := range n.Watch(t.Context()) {
		if last = *s.Backup; last.Name != "" {
			break
		}
	}
	if last.Err != "" || !last.Makes || last.Size == 0 || !strings.HasPrefix(last.Name, "flotilla-") {
		t.Errorf("the status is %+v", last)
	}
	want := []string{"notes.txt"}
	for days := range 5 {
		name, err := formerName(last.Name, 4-days)
		if err != nil {
			t.Fatal(err)
		}
		if days > 1 { // three are kept
			want = append(want[:len(want)-1], name, "notes.txt")
			continue
		}
		select {
		case <-removed:
		case <-time.After(limit):
			t.Fatal("old backups are not removed")
		}
	}
	if names, err := store.List(t.Context()); err != nil || !cmp.Equal(want, names) {
		t.Errorf("%v\n%s", err, cmp.Diff(want, names))
	}
	r, err := store.Load(t.Context(), last.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	info, err := flotilla.VerifyBackup(r, secret)
	if err != nil || info.Index != last.Index || info.Size != last.Size {
		t.Errorf("the backup is %+v, %v", info, err)
	}
}

// A backup that cannot be stored, or does not come back whole, is in the status of the node with
// all that its error says. It stays in the store only if it was stored and not read.
func TestFailingNode(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*s3store.Config)
		fault  func(f *front) fault
		want   []string
		stays  bool
	}{
		"unreachable": {
			change: func(c *s3store.Config) { c.Endpoint = nobody },
			want:   []string{"storing it: ", nobody, "/flotilla-", "connection refused", "start the store, or correct S3_ENDPOINT"},
		},
		"wrong secret": {
			change: func(c *s3store.Config) { c.Credentials = credentials.NewStaticV4(accessKey, "wrong-"+secretKey, "") },
			want:   []string{"storing it: ", "/flotilla-", "SignatureDoesNotMatch", "correct AWS_ACCESS_KEY_ID"},
		},
		"overloaded": {
			fault: func(*front) fault { return on("PUT", "", slowDown()) },
			want:  []string{"storing it: ", "/flotilla-", "SlowDown", "the store is overloaded or broken"},
		},
		"cut": {
			fault: func(f *front) fault { return on("GET", ".backup", f.half(func() { panic(http.ErrAbortHandler) })) },
			want:  []string{"it is stored, and counts when it can be read back: ", "/flotilla-", "the connection was cut"},
			stays: true,
		},
		"truncated": {
			fault: func(f *front) fault { return on("GET", ".backup", f.half(nil)) },
			want:  []string{"it cannot be restored, and is removed: ", "cannot open what is sealed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t)
			c := config(f)
			changed := c
			if test.change != nil {
				test.change(&changed)
			}
			if test.fault != nil {
				f.set(test.fault(f))
			}
			n := startNode(t, open(t, changed), 3, flotilla.NewSecret())
			err := await(t.Context(), func(context.Context) error {
				if why := n.Status().Backup.Err; why == "" {
					return fmt.Errorf("the status says nothing of it: %+v", n.Status().Backup)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			status := n.Status().Backup
			if status.Name != "" {
				t.Errorf("%s counts", status.Name)
			}
			wantError(t, errors.New(status.Err), test.want...)
			f.set(nil)
			if !test.stays {
				wantNothing(t, c)
				return
			}
			if names, err := open(t, c).List(t.Context()); err != nil || len(names) != 1 {
				t.Errorf("stored are %q, %v", names, err)
			}
		})
	}
}

// A truncated object is no backup, and its error says so.
func TestTruncatedObject(t *testing.T) {
	t.Parallel()
	c := config(newFront(t))
	store, secret := open(t, c), flotilla.NewSecret()
	n := startNode(t, open(t, config(newFront(t))), 3, secret)
	var whole bytes.Buffer
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Backup(t.Context(), &whole); err != nil {
		t.Fatal(err)
	}
	if err := save(t, store, "cut.backup", whole.Bytes()[:whole.Len()/2]); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for what, err := range map[string]error{
		"fetch":   fetch(t.Context(), io.Discard, store, "cut.backup", dir+"/x.backup", []flotilla.Secret{secret}),
		"restore": restore(t.Context(), io.Discard, store, "cut.backup", dir+"/data", []flotilla.Secret{secret}),
	} {
		if !errors.Is(err, flotilla.ErrSealed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	wantEmpty(t, dir)
}
