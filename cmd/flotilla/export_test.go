package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// The directory of an export is empty, or what an earlier one left.
func TestExportInto(t *testing.T) {
	records := map[string]string{"a/b/c": "1", "a/d": "2", "e": ""}
	outside := t.TempDir()
	for name, test := range map[string]struct {
		prepare func(dir string) error
		code    int
		want    string
		files   map[string]string // nil: all records
	}{
		"nothing there": {func(dir string) error { return os.Remove(dir) }, exitOK, "other records         3              0        0", nil},
		"empty":         {func(string) error { return nil }, exitOK, "other records         3              0        0", nil},
		"interrupted": {func(dir string) error {
			store(t, dir, map[string]string{"a/d": "2", "a/" + tempPrefix + "XYZ": "half"})
			return nil
		}, exitOK, "other records         2              1        0", nil},
		"another content": {func(dir string) error {
			store(t, dir, map[string]string{"a/d": "3"})
			return nil
		}, exitRefused, "refused: a/d: there is a file with another content; remove it", map[string]string{"a/b/c": "1", "a/d": "3", "e": ""}},
		"another length": {func(dir string) error {
			store(t, dir, map[string]string{"e": "3"})
			return nil
		}, exitRefused, "refused: e: there is a file with another content", map[string]string{"a/b/c": "1", "a/d": "2", "e": "3"}},
		"another file": {func(dir string) error {
			store(t, dir, map[string]string{"a/d": "2", "x": "1"})
			return nil
		}, exitRefused, "holds x, which this export would not write; give an empty directory", map[string]string{"a/d": "2", "x": "1"}},
		"a directory in the way": {func(dir string) error {
			return os.Mkdir(filepath.Join(dir, "e"), 0o700)
		}, exitRefused, "refused: e: something else has this name", map[string]string{"a/b/c": "1", "a/d": "2"}},
		"a file in the way": {func(dir string) error {
			store(t, dir, map[string]string{"a/b": "1"})
			return nil
		}, exitRefused, "holds a/b, which this export would not write", map[string]string{"a/b": "1"}},
		"a link": {func(dir string) error {
			return os.Symlink(outside, filepath.Join(dir, "a"))
		}, exitRefused, "holds a, which this export would not write", map[string]string{}},
		"a link for a directory": {func(dir string) error {
			if err := os.Remove(dir); err != nil {
				return err
			}
			return os.Symlink(outside, dir)
		}, exitRefused, "is a symbolic link, and those are not followed", map[string]string{}},
		"open to others": {func(dir string) error { return os.Chmod(dir, 0o755) }, exitOK, "remark: others than its owner may enter", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := test.prepare(dir); err != nil {
				t.Fatal(err)
			}
			exportRecords(t, records, dir).want(t, test.code, test.want)
			if test.files == nil {
				test.files = records
			}
			if name == "open to others" {
				os.Chmod(dir, 0o700)
			}
			if info, err := os.Lstat(filepath.Join(dir, "a")); err == nil && !info.IsDir() {
				os.Remove(filepath.Join(dir, "a"))
			}
			if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
				os.Remove(dir)
				os.Mkdir(dir, 0o700)
			}
			if diff := cmp.Diff(test.files, files(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Errorf("outside there is now %v", left)
			}
		})
	}
}

// exportRecords exports the records of a cluster that has just these.
func exportRecords(t *testing.T, records map[string]string, dir string) (got said) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		for key, value := range records {
			if err := c.Nodes[0].Storage().Store(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		got = operatorOf(c).run(t, "export", "-plain-keys", dir)
	})
	return got
}

// Without a quorum the operator gets what a node has, and is told.
func TestExportWithoutQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		if err := c.Nodes[0].Storage().Store(t.Context(), "k", []byte("1")); err != nil {
			t.Fatal(err)
		}
		c.Kill(1)
		c.Kill(2)
		dir := filepath.Join(t.TempDir(), "out")
		operatorOf(c).run(t, "export", "-plain-keys", dir).want(t, exitOK, "remark: no leader could be asked", "other records         1")
		if diff := cmp.Diff(map[string]string{"k": "1"}, files(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
}

// Keys come from the network. None of them leads out of the directory, whatever a node says.
func TestExportStaysInside(t *testing.T) {
	bad := []string{"../evil", "a/../../evil", "/evil", "a//evil", "a/./evil", "", ".", "..", "a/", "evil\x00", "a/.."}
	keys := append([]string{"good/one"}, bad...)
	keys = append(keys, "good/two")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secret := flotilla.NewSecret()
	raw, err := seal.ParseSecret(secret.Encode())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(remote.CallList, func(w http.ResponseWriter, r *http.Request) {
		w.Write(remote.ListReply{Keys: keys, Current: true}.Encode())
	})
	mux.HandleFunc(remote.CallLoad, func(w http.ResponseWriter, r *http.Request) {
		w.Write(remote.LoadReply{Values: []remote.Value{{Found: true, Bytes: []byte("1")}, {Found: true, Bytes: []byte("2")}}}.Encode())
	})
	port, err := wire.Open(wire.Config{ID: strings.Repeat("a", 32), Secrets: []seal.Secret{raw}, Listener: l, Handler: mux})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	above := t.TempDir()
	dir := filepath.Join(above, "x", "dir")
	o := &operator{env: map[string]string{"FLOTILLA_SECRETS": secret.Encode(), "FLOTILLA_PEERS": l.Addr().String()}}
	got := o.run(t, "export", "-plain-keys", dir)
	got.want(t, exitRefused, "refused: ../evil: it cannot be the name of a file here\n", `refused: "evil\x00": it cannot`)
	if n := strings.Count(got.out, "refused: "); n != len(bad) {
		t.Errorf("%d keys were refused, want %d:\n%s", n, len(bad), got.out)
	}
	if diff := cmp.Diff(map[string]string{"x/dir/good/one": "1", "x/dir/good/two": "2"}, filesBelow(t, above)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// filesBelow is files without a look at the modes of the directories that are not the export's.
func filesBelow(t *testing.T, above string) map[string]string {
	t.Helper()
	os.Chmod(above, 0o700)
	return files(t, above)
}

// Somebody else may change the directory while it is written to.
func TestTargetFollowsNoLink(t *testing.T) {
	dir, outside := filepath.Join(t.TempDir(), "dir"), t.TempDir()
	target, err := openTarget(dir, []string{"a/b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	defer target.close()
	for name, to := range map[string]string{"a": outside, "c": filepath.Join(outside, "c"), "inside": "."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{
		"a/b":      "a is in the way, which is no directory",
		"c":        "something else has this name",
		"inside/b": "inside is in the way, which is no directory",
		"../b":     "it cannot be the name of a file here",
	} {
		if done, err := target.write(key, []byte("1")); done || err == nil || err.Error() != want {
			t.Errorf("%s: %v, %v; want %q", key, done, err, want)
		}
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("outside there is now %v", left)
	}
	if err := target.sync(); err != nil {
		t.Error(err)
	}
}

func FuzzCheckName(f *testing.F) {
	for _, key := range []string{"a", "a/b", "../a", "/a", "a/../../b", "a\x00", `a\..\b`, "C:a", "..."} {
		f.Add(key)
	}
	root := filepath.FromSlash("/root/dir")
	f.Fuzz(func(t *testing.T, key string) {
		if checkName(key) != nil {
			return
		}
		joined := filepath.Join(root, filepath.FromSlash(key))
		if back, err := filepath.Rel(root, joined); err != nil || filepath.ToSlash(back) != key || back == "." || back == ".." || strings.HasPrefix(filepath.ToSlash(back), "../") {
			t.Errorf("%q becomes %q", key, joined)
		}
	})
}
