package flotilla_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
)

// What is wrong with domains and ports is found before anything is touched: no directory is made,
// and no other node hears of this one.
func TestServeFindsErrorsFirst(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().String()
	peers := func(context.Context) ([]string, error) { return nil, nil }
	for _, tc := range []struct {
		name    string
		change  func(*flotilla.Config)
		domains []string
		field   string
		text    string
	}{
		{"no domain", nil, nil, "domains", "name at least one domain"},
		{"empty", nil, []string{"app.test", " "}, "domains", "it is empty"},
		{"URL", nil, []string{"https://app.test"}, "domains", "write the host name alone"},
		{"port", nil, []string{"app.test:443"}, "domains", "without a port"},
		{"path", nil, []string{"app.test/"}, "domains", "without a path"},
		{"two in one", nil, []string{"app.test,www.app.test"}, "domains", "a value of its own"},
		{"dot at the end", nil, []string{"app.test."}, "domains", "leave out the dot"},
		{"empty label", nil, []string{"app..test"}, "domains", "1 to 63 letters"},
		{"underscore", nil, []string{"my_app.test"}, "domains", "letters, digits and hyphens"},
		{"number", nil, []string{"app.1"}, "domains", "the last must not be a number"},
		{"wildcard without DNS", nil, []string{"*.app.test"}, "domains", "DNS-01"},
		{"wildcard within", nil, []string{"a*.app.test"}, "domains", "the whole first label"},
		{"wildcard of all", nil, []string{"*"}, "domains", "the whole first label"},
		{"brackets", nil, []string{"[2001:db8::1]:443"}, "domains", "without brackets"},
		{"unspecified address", nil, []string{"0.0.0.0"}, "domains", "unspecified"},
		{"zone", nil, []string{"fe80::1%eth0"}, "domains", "zone"},
		{"HTTPS port in use", func(c *flotilla.Config) { c.HTTPSAddr = port }, []string{"app.test"}, "HTTPSAddr", "another process listens"},
		{"HTTP port in use", func(c *flotilla.Config) { c.HTTPAddr = port }, []string{"app.test"}, "HTTPAddr", "another process listens"},
		{"health port in use", func(c *flotilla.Config) { c.HealthAddr = port }, []string{"app.test"}, "HealthAddr", "another process listens"},
		{"peers' port in use", func(c *flotilla.Config) { c.Addr = port }, []string{"app.test"}, "Addr", "another process listens"},
		{"no address of this machine", func(c *flotilla.Config) { c.HTTPSAddr = "192.0.2.1:443" }, []string{"app.test"}, "HTTPSAddr", "not an address of this machine"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			cfg := flotilla.Config{
				Dir: dir, Secrets: []flotilla.Secret{flotilla.NewSecret()}, Addr: "127.0.0.1:0", HTTPSAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0",
				HealthAddr: "127.0.0.1:0", TLS: flotilla.TLS{Email: "a@app.test"}, Peers: peers,
			}
			if tc.change != nil {
				tc.change(&cfg)
			}
			err := flotilla.Serve(t.Context(), cfg, http.NotFoundHandler(), tc.domains...)
			var ce *flotilla.ConfigError
			if !errors.As(err, &ce) || ce.Field != tc.field || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%v, want a ConfigError of %s with %q", err, tc.field, tc.text)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory was made: %v", err)
			}
		})
	}
}

// What a node leaves on disk is for its user alone, in a directory that was there before as well,
// and where a copy has widened the modes.
func TestFilesArePrivate(t *testing.T) {
	flotilla.SkipShort(t)
	t.Parallel() // it waits
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes here")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := flotilla.NewSecret()
	run := func() {
		n, err := flotilla.Open(t.Context(), flotilla.Config{Dir: dir, Addr: "127.0.0.1:0", Secrets: []flotilla.Secret{secret}})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.Storage().Store(t.Context(), "x", []byte("y")); err != nil {
			t.Fatal(err)
		}
		if err := n.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		files := 0
		filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			fi, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if files++; fi.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, fi.Mode())
			}
			return nil
		})
		if _, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin")); err != nil || files < 6 {
			t.Errorf("only %d files: %v", files, err)
		}
	}
	run()
	check()
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		mode := fs.FileMode(0o644)
		if e.IsDir() {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
	run()
	check()
	if err := os.WriteFile(filepath.Join(dir, "foreign"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run()
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("a directory that is not the node's alone was changed: %v, %v", fi.Mode(), err)
	}
}

// Every variable that is read is known, or setting it would be an error.
func TestEveryVariableIsKnown(t *testing.T) {
	source, err := os.ReadFile("env.go")
	if err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile("envnames.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`"FLOTILLA_([A-Z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(names) < 10 {
		t.Fatalf("only %d variables found", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(known), `"`+name[1]+`": "`) {
			t.Errorf("envNames does not have %s", name[1])
		}
	}
}
