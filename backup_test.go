package flotilla_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// backup returns a backup that a node has made.
func backup(t *testing.T, n *flotilla.Node) ([]byte, flotilla.BackupInfo) {
	t.Helper()
	var b bytes.Buffer
	info, err := n.Backup(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), info
}

// restore makes a directory of a backup.
func restore(t *testing.T, dir string, backup []byte, secrets ...flotilla.Secret) {
	t.Helper()
	if _, err := flotilla.Restore(dir, bytes.NewReader(backup), secrets...); err != nil {
		t.Fatal(err)
	}
}

// Every node makes the same backup, which is described truly and opens with the cluster's secret.
func TestBackup(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		storeMany(t, c.Nodes[0], "k", 5)
		secret := c.Config(0).Secrets[0]
		for i, n := range c.Nodes {
			sealed, info := backup(t, n)
			s := n.Status()
			want := flotilla.BackupInfo{
				Cluster: s.Cluster, Index: info.Index, Time: time.Now(), Node: s.Name, Current: true,
				Secrets: []string{strings.TrimSuffix(strings.TrimPrefix(secret.String(), "secret("), ")")},
				Records: 5, Bytes: 5 * 3, Size: int64(len(sealed)),
			}
			if diff := cmp.Diff(want, info); diff != "" || info.Index > s.Index || info.Index == 0 {
				t.Errorf("n%d, which has applied entry %d:\n%s", i, s.Index, diff)
			}
			got, err := flotilla.VerifyBackup(bytes.NewReader(sealed), flotilla.NewSecret(), secret)
			if diff := cmp.Diff(info, got); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
			other := flotilla.NewSecret()
			if _, err := flotilla.VerifyBackup(bytes.NewReader(sealed), other); !errors.Is(err, flotilla.ErrSealed) || !strings.Contains(err.Error(), want.Secrets[0]) {
				t.Errorf("with another secret: %v", err)
			}
			if _, err := flotilla.VerifyBackup(bytes.NewReader(sealed)); err == nil || !strings.Contains(err.Error(), "no secret is given") {
				t.Errorf("without a secret: %v", err)
			}
		}
		broken := errors.New("broken")
		if _, err := c.Nodes[0].Backup(t.Context(), failing{broken}); !errors.Is(err, broken) {
			t.Errorf("to a writer that fails: %v", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(broken)
		if _, err := c.Nodes[0].Backup(ctx, io.Discard); !errors.Is(err, broken) {
			t.Errorf("with a context that has ended: %v", err)
		}
		c.Kill(0)
		if _, err := c.Nodes[0].Backup(t.Context(), io.Discard); !errors.Is(err, flotilla.ErrClosed) {
			t.Errorf("of a closed node: %v", err)
		}
		// Without a leader a node gives what it has, and says so.
		c.Kill(1)
		time.Sleep(10 * time.Second)
		if _, info := backup(t, c.Nodes[2]); info.Current || info.Records != 5 {
			t.Errorf("without a leader: %+v", info)
		}
	})
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// One node is started with a restored directory and two with empty ones: within seconds all three
// have the records and show the former certificate. Fences go on rising.
func TestRestoreCluster(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const name = "a.test"
		private := func(_ int, cfg *flotilla.Config) { cfg.TLS.Private = true }
		c := clustertest.New(t, 3, private)
		c.Settle()
		storeMany(t, c.Nodes[0], "k", 20)
		serial := func(n *flotilla.Node) string {
			cfg, err := n.TLSConfig(name)
			if err != nil {
				t.Fatal(err)
			}
			return testtls.Serial(cfg, name)
		}
		for _, n := range c.Nodes {
			serial(n)
		}
		time.Sleep(10 * time.Second)
		was := serial(c.Nodes[0])
		fenceOf := func(n *flotilla.Node) (fence uint64) {
			err := n.Hold(t.Context(), flotilla.Role{Name: "r"}, func(_ context.Context, tenure flotilla.Tenure) error {
				fence = tenure.Fence()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return fence
		}
		sealed, info := backup(t, c.Nodes[1])
		if info.Certificates != 1 {
			t.Errorf("%d certificates are in the backup", info.Certificates)
		}
		storeMany(t, c.Nodes[0], "lost", 20)
		fence := fenceOf(c.Nodes[2])
		secrets := c.Config(0).Secrets
		for _, i := range c.Live() {
			c.Kill(i)
		}

		began := time.Now()
		again := clustertest.New(t, 3, func(i int, cfg *flotilla.Config) {
			private(i, cfg)
			cfg.Secrets = secrets
			if i == 0 {
				restore(t, cfg.Dir, sealed, secrets...)
			}
		})
		again.Settle()
		for i, n := range again.Nodes {
			if got := serial(n); got != was {
				t.Errorf("n%d shows the certificate %q, and before it was %q", i, got, was)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		for i := range 20 {
			wantEverywhere(t, again, fmt.Sprint("k", i), "1")
		}
		for i, n := range again.Nodes {
			if _, err := n.Storage().Load(t.Context(), "lost0"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("n%d has what was written after the backup: %v", i, err)
			}
		}
		if now := fenceOf(again.Nodes[1]); now <= fence {
			t.Errorf("the fence %d comes after %d", now, fence)
		}
		if id := again.Nodes[0].Status().Cluster; id != info.Cluster {
			t.Errorf("the cluster's ID is %s, and it was %s", id, info.Cluster)
		}
		time.Sleep(30 * time.Second)
		for _, m := range again.Nodes[0].Status().Members {
			if !m.Voter {
				t.Errorf("%s does not vote", m.Name)
			}
		}
		// The same backup is restored once more: its fences are newer all the same.
		fence = fenceOf(again.Nodes[1])
		time.Sleep(time.Second)
		third := clustertest.New(t, 1, func(i int, cfg *flotilla.Config) {
			private(i, cfg)
			cfg.Secrets = secrets
			restore(t, cfg.Dir, sealed, secrets...)
		})
		third.Settle()
		if now := fenceOf(third.Nodes[0]); now <= fence {
			t.Errorf("restored again, the fence %d comes after %d", now, fence)
		}
		again.Kill(again.Leader())
		again.Settle()
		store(t, again.Nodes[again.Live()[0]], "more", "1")
	})
}

// wantSetAside checks that a node has become another one, and has what the cluster has.
func wantSetAside(t *testing.T, c *clustertest.Cluster, i int, was string) {
	t.Helper()
	s := c.Nodes[i].Status()
	if s.ID == was || s.SetAside == "" {
		t.Errorf("n%d goes on as %s, with %q set aside", i, s.ID, s.SetAside)
	}
	if _, err := os.Stat(filepath.Join(c.Config(i).Dir, s.SetAside, "raft.db")); err != nil {
		t.Errorf("the former state of n%d: %v", i, err)
	}
}

// A node of the cluster before the restore comes back: it takes no part as what it was, and joins
// as a new one.
func TestFormerNodeComesBack(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		storeMany(t, c.Nodes[0], "k", 5)
		sealed, _ := backup(t, c.Nodes[0])
		storeMany(t, c.Nodes[0], "lost", 5)
		was := c.Nodes[2].Status().ID
		for i := range 3 {
			c.Kill(i)
		}
		for i := range 2 {
			if err := os.RemoveAll(c.Config(i).Dir); err != nil {
				t.Fatal(err)
			}
		}
		restore(t, c.Config(0).Dir, sealed, c.Config(0).Secrets...)
		c.Restart(0)
		c.Restart(1)
		c.Settle()
		c.Restart(2)
		c.Settle()
		wantSetAside(t, c, 2, was)
		time.Sleep(30 * time.Second)
		wantEverywhere(t, c, "k4", "1")
		for _, n := range c.Nodes {
			if keys, err := n.Storage().List(t.Context(), "", false); err != nil || len(keys) != 5 {
				t.Errorf("%v, %v", keys, err)
			}
			if members := n.Status().Members; len(members) != 3 {
				t.Errorf("the members are %v", members)
			}
		}
	})
}

// A majority of the former cluster still runs when a restored node meets it. It gives up at once,
// with what it holds, and joins when it is started again.
func TestFormerMajorityGivesUp(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		sealed, _ := backup(t, c.Nodes[0])
		var lost atomic.Bool
		held := make(chan struct{})
		go c.Nodes[1].Hold(t.Context(), flotilla.Role{Name: "r"}, func(ctx context.Context, _ flotilla.Tenure) error {
			close(held)
			<-ctx.Done()
			lost.Store(true)
			return nil
		})
		<-held
		was := []string{"", c.Nodes[1].Status().ID, c.Nodes[2].Status().ID}
		c.Kill(0)
		if err := os.RemoveAll(c.Config(0).Dir); err != nil {
			t.Fatal(err)
		}
		restore(t, c.Config(0).Dir, sealed, c.Config(0).Secrets...)
		c.Restart(0)
		time.Sleep(2 * time.Second)
		if !lost.Load() {
			t.Error("a role of the former cluster is still held")
		}
		for _, i := range []int{1, 2} {
			wantFailure(t, c.Nodes[i], "was restored or recovered since")
			if err := c.Nodes[i].Storage().Store(t.Context(), "late", nil); err == nil || !strings.Contains(err.Error(), "was restored or recovered since") {
				t.Errorf("the former cluster still writes: %v", err)
			}
			c.Kill(i)
		}
		c.SettleNodes(0)
		for _, i := range []int{1, 2} {
			c.Restart(i)
		}
		c.Settle()
		for _, i := range []int{1, 2} {
			wantSetAside(t, c, i, was[i])
		}
		wantEverywhere(t, c, "k", "1")
	})
}

// Two restores of one backup do not replace each other.
func TestRestoredTwice(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 2, nil)
		c.Settle()
		sealed, _ := backup(t, c.Nodes[0])
		for i := range 2 {
			c.Kill(i)
			if err := os.RemoveAll(c.Config(i).Dir); err != nil {
				t.Fatal(err)
			}
			restore(t, c.Config(i).Dir, sealed, c.Config(i).Secrets...)
		}
		c.Restart(0)
		c.SettleNodes(0)
		c.Restart(1)
		c.SettleNodes(1)
		for i, n := range c.Nodes {
			if s := n.Status(); s.Err != "" || len(s.Members) != 1 {
				t.Errorf("n%d: %q, members %v", i, s.Err, s.Members)
			}
		}
		third := c.Add(nil)
		time.Sleep(10 * time.Second)
		if err := ready(t, c.Nodes[third]); err == nil || !strings.Contains(err.Error(), "the cluster was restored or recovered twice") {
			t.Errorf("a node that finds both: %v", err)
		}
	})
}

// ready waits for a moment until a node is ready.
func ready(t *testing.T, n *flotilla.Node) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return n.Ready(ctx)
}

// What cannot be restored leaves everything as it is. An interrupted restore keeps the node from
// starting, and is completed by another one.
func TestRestoreRefuses(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		sealed, _ := backup(t, c.Nodes[0])
		secrets := c.Config(0).Secrets
		empty := filepath.Join(t.TempDir(), "empty")
		refused := func(field, want, dir string, backup []byte, secrets ...flotilla.Secret) {
			t.Helper()
			before := dirNames(dir)
			_, err := flotilla.Restore(dir, bytes.NewReader(backup), secrets...)
			var config *flotilla.ConfigError
			if err == nil || !strings.Contains(err.Error(), want) || errors.As(err, &config) != (field != "") || field != "" && config.Field != field {
				t.Errorf("%v; want one with %q about %q", err, want, field)
			}
			if diff := cmp.Diff(before, dirNames(dir)); diff != "" {
				t.Errorf("the directory has changed:\n%s", diff)
			}
		}
		refused("Dir", "is in use by another process", c.Config(0).Dir, sealed, secrets...)
		c.Stop(0)
		refused("Dir", "has the data of a node already", c.Config(0).Dir, sealed, secrets...)
		refused("Dir", "no directory is given", "", sealed, secrets...)
		refused("", "no secret is given", empty, sealed)
		refused("", "sealed for secret", empty, sealed, flotilla.NewSecret())
		refused("", "cannot open what is sealed", empty, sealed[:len(sealed)-1], secrets...)
		refused("", "cannot open what is sealed", empty, nil, secrets...)
		if _, err := os.Stat(empty); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a directory was made: %v", err)
		}

		// An interrupted restore is completed by another one, and no node starts in between.
		restore(t, empty, sealed, secrets...)
		markInterrupted(t, empty, func(id *membership.Identity) { id.Restoring, id.Member = true, false })
		cfg := *c.Config(0)
		cfg.Dir = empty
		wantConfigError(t, cfg, "Dir", "was interrupted; run it again")
		restore(t, empty, sealed, secrets...)
		if err := os.RemoveAll(empty); err != nil {
			t.Fatal(err)
		}

		// A backup of before a change of the secret.
		newer := flotilla.NewSecret()
		restore(t, empty, sealed, newer, secrets[0])
		c.Config(0).Dir, c.Config(0).Secrets = empty, []flotilla.Secret{newer}
		c.Restart(0)
		c.Settle()
		wantEverywhere(t, c, "k", "1")
		if again, info := backup(t, c.Nodes[0]); !slices.Contains(info.Secrets, secretID(newer)) || len(again) == 0 {
			t.Errorf("the secrets are %q", info.Secrets)
		}
	})
}

func secretID(s flotilla.Secret) string {
	return strings.TrimSuffix(strings.TrimPrefix(s.String(), "secret("), ")")
}

func dirNames(dir string) (all []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// One of the nodes makes backups by itself: at once, soon after a certificate has changed, and when
// the node that made them is gone. All nodes know of the last one.
func TestAutomaticBackups(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const every = 10 * time.Minute
		dir := t.TempDir()
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) {
			cfg.TLS.Private = true
			cfg.Backups = flotilla.Backups{Dir: dir, Every: every}
		})
		c.Settle()
		time.Sleep(3 * time.Second)
		last := func() *flotilla.BackupStatus {
			t.Helper()
			var b *flotilla.BackupStatus
			for _, i := range c.Live() {
				now := c.Nodes[i].Status().Backup
				if now == nil || !now.Makes || now.Time.IsZero() || now.Err != "" || b != nil && !cmp.Equal(b, now) {
					t.Fatalf("n%d knows of the backup %+v, another of %+v", i, now, b)
				}
				b = now
			}
			sealed, err := os.ReadFile(filepath.Join(dir, b.Name))
			if err != nil {
				t.Fatal(err)
			}
			info, err := flotilla.VerifyBackup(bytes.NewReader(sealed), c.Config(0).Secrets...)
			if err != nil || info.Index != b.Index || info.Size != b.Size || !info.Current {
				t.Errorf("%s is %+v, %v", b.Name, info, err)
			}
			return b
		}
		first := last()
		if first.Every != every || first.Late(time.Now()) {
			t.Errorf("%+v", first)
		}
		for _, n := range c.Nodes {
			if _, err := n.TLSConfig("a.test"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(15 * time.Second)
		second := last()
		if second.Index == first.Index {
			t.Error("no backup follows a certificate")
		}
		for i, n := range c.Nodes {
			if n.Status().Name == second.Node {
				c.Kill(i)
			}
		}
		time.Sleep(every + time.Minute)
		if third := last(); third.Node == second.Node || third.Time.Sub(second.Time) > every+time.Minute {
			t.Errorf("%+v follows %+v", third, second)
		}
		// Nobody is to make backups any more, and all still know of the last one.
		for i := range c.Nodes {
			c.Config(i).Backups = flotilla.Backups{}
			if slices.Contains(c.Live(), i) {
				c.Stop(i)
			}
		}
		for i := range c.Nodes {
			c.Restart(i)
		}
		c.Settle()
		if b := c.Nodes[0].Status().Backup; b == nil || b.Makes || b.Time.IsZero() {
			t.Errorf("%+v", b)
		}
	})
}

// brokenStore stores nothing.
type brokenStore struct{ flotilla.BackupStore }

func (brokenStore) Save(context.Context, string, func(io.Writer) error) error {
	return errors.New("the bucket is gone")
}

// A backup that fails is not silent.
func TestAutomaticBackupFails(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) {
			cfg.Backups = flotilla.Backups{Store: brokenStore{}}
		})
		c.Settle()
		time.Sleep(time.Minute)
		s := c.Nodes[0].Status()
		if s.Backup == nil || s.Backup.Err != "storing it: the bucket is gone" || !s.Backup.Late(time.Now()) {
			t.Errorf("%+v", s.Backup)
		}
		if !slices.ContainsFunc(s.Waiting, func(w flotilla.WaitStatus) bool { return w.What == "no backup can be made" }) {
			t.Errorf("%+v", s.Waiting)
		}
	})
}

// markInterrupted changes the identity in a directory, as an interrupted restore or recovery leaves
// it.
func markInterrupted(t *testing.T, dir string, change func(*membership.Identity)) {
	t.Helper()
	d, err := durable.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.ReadFile(durable.IdentityFile)
	var id membership.Identity
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err == nil {
		err = membership.NewIdentityFile(d, &id).Save(change)
	}
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
}

// copyFile copies a file into a directory that it makes.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o700)
	}
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A node answers nonsense about a backup with an error, and sends none.
func TestBackupRequestNonsense(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		port := operatorPort(t, c)
		for _, body := range []string{"\x00", "\xff", "\x01a"} {
			if _, reply, err := port.CallAddr(t.Context(), "n0:7373", remote.CallBackup, []byte(body)); err == nil || !strings.Contains(err.Error(), "malformed encoding (status 400)") {
				t.Errorf("%q: %q, %v", body, reply, err)
			}
		}
	})
}
