package preflight

import (
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
)

// want checks the finding about an item: its level, and parts of its text and remedy.
func (r Report) want(t *testing.T, item string, level Level, parts ...string) {
	t.Helper()
	f, ok := r.Find(item)
	if !ok {
		t.Errorf("nothing is said about the %s; the report is %+v", item, r)
		return
	}
	if f.Level != level || level != OK && f.Remedy == "" || level == OK && f.Remedy != "" {
		t.Errorf("%+v; want the level %s, and a remedy unless it is ok", f, level)
	}
	for _, part := range parts {
		if !strings.Contains(f.Text+"; "+f.Remedy, part) {
			t.Errorf("it should say %q of the %s, and says %q; %q", part, item, f.Text, f.Remedy)
		}
	}
}

// configure sets the variables of a node, so that nothing leads out of this machine.
func configure(t *testing.T, more map[string]string) {
	t.Helper()
	for name, value := range map[string]string{
		"ADDR": "127.0.0.1:0", "HTTPS_ADDR": "127.0.0.1:0", "HTTP_ADDR": "127.0.0.1:0", "HEALTH_ADDR": ":0", "HEALTH_TOKEN": "t0ken-of-the-port",
		"ACME_CA": "https://127.0.0.1:1/dir?token=t0ken",
	} {
		t.Setenv("FLOTILLA_"+name, value)
	}
	for name, value := range more {
		t.Setenv("FLOTILLA_"+name, value)
	}
}

func run(t *testing.T, o Options) Report {
	t.Helper()
	o.Getenv = os.Getenv
	r := Run(t.Context(), o)
	for _, f := range r {
		if strings.Contains(f.Text+f.Remedy, "t0ken") || regexp.MustCompile("(?i)flt1_[a-z0-9]{4}").MatchString(f.Text+f.Remedy) {
			t.Errorf("a secret is shown: %+v", f)
		}
	}
	return r
}

func TestVariables(t *testing.T) {
	secret := flotilla.NewSecret().Encode()
	for _, tc := range []struct {
		name  string
		vars  map[string]string
		item  string
		level Level
		says  string
	}{
		{"all are well", map[string]string{"SECRETS": secret}, "variables", OK, "have the right form"},
		{"the health port is for this machine", map[string]string{"SECRETS": secret}, "port for health", OK, "can listen at 127.0.0.1:0"},
		{"the health port's two forms", map[string]string{"SECRETS": secret, "HEALTH_ADDR": ":1", "HTTP_ADDR": "127.0.0.1:1"}, "variables", Failure, "Config.HealthAddr: it is 127.0.0.1:1, as HTTPAddr is"},
		{"a foreign health address", map[string]string{"SECRETS": secret, "HEALTH_ADDR": "192.0.2.1:1"}, "port for health", Failure, "or 0.0.0.0:port for all of them"},
		{"the health token's file is open", map[string]string{"SECRETS": secret, "HEALTH_TOKEN": "", "HEALTH_TOKEN_FILE": secretFile(t, secret, 0o644)}, "health token", Warning, "chmod 600"},
		{"a short health token", map[string]string{"SECRETS": secret, "HEALTH_TOKEN": "t0ken"}, "variables", Failure, "FLOTILLA_HEALTH_TOKEN holds no token that can be used"},
		{"misspelt", map[string]string{"SECRETS": secret, "ADRR": ":1"}, "variables", Failure, "FLOTILLA_ADRR is not known; is FLOTILLA_ADDR meant?"},
		{"an authority with a password", map[string]string{"SECRETS": secret, "ACME_CA": "https://user:t0ken@ca.test/dir"}, "variables", Failure, "must be the https URL"},
		{"a bad secret", map[string]string{"SECRETS": secret[:len(secret)-1]}, "variables", Failure, "FLOTILLA_SECRETS holds no valid secret in place 1"},
		{"two ports are the same", map[string]string{"SECRETS": secret, "ADDR": ":1", "HTTP_ADDR": ":1"}, "variables", Failure, "Config.HTTPAddr: it is :1, as Addr is"},
		{"nothing is set", nil, "variables", Warning, "development mode"},
		{"backups", map[string]string{"SECRETS": secret, "BACKUPS": t.TempDir()}, "backups", OK, "may write to"},
		{"backups later", map[string]string{"SECRETS": secret, "BACKUPS": filepath.Join(t.TempDir(), "new")}, "backups", OK, "is not there; the node makes it"},
		{"backups into a file", map[string]string{"SECRETS": secret, "BACKUPS": fileIn(t)}, "backups", Failure, "not a directory"},
		{"backups where no directory can be", map[string]string{"SECRETS": secret, "BACKUPS": "/proc/none/backups"}, "backups", Failure, "cannot be made"},
		{"in memory", map[string]string{"SECRETS": secret, "PEERS": "127.0.0.1:1"}, "directory", Warning, "in memory"},
		{"the secret's file is open", map[string]string{"SECRETS_FILE": secretFile(t, secret, 0o644)}, "secret", Warning, "chmod 600"},
		{"the secret's file is private", map[string]string{"SECRETS_FILE": secretFile(t, secret, 0o600)}, "secret", OK, "its fingerprint is "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			configure(t, tc.vars)
			run(t, Options{Serve: true}).want(t, tc.item, tc.level, tc.says)
		})
	}
}

// The rest is checked even if backups cannot be written.
func TestFailedBackupsEndNothing(t *testing.T) {
	configure(t, map[string]string{"SECRETS": flotilla.NewSecret().Encode(), "BACKUPS": fileIn(t), "DIR": privateDir(t)})
	r := run(t, Options{})
	r.want(t, "backups", Failure, "not a directory")
	r.want(t, "owner", OK, "belongs to this user alone")
}

func TestDirectory(t *testing.T) {
	secret := flotilla.NewSecret().Encode()
	private := func(t *testing.T, mode fs.FileMode, files ...string) string {
		dir := filepath.Join(t.TempDir(), "data")
		if err := os.Mkdir(dir, mode); err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for _, tc := range []struct {
		name     string
		dir      string
		maxState string
		item     string
		level    Level
		says     string
	}{
		{"missing", filepath.Join(t.TempDir(), "a", "b"), "", "directory", OK, "is not there; the node makes it"},
		{"below a file", filepath.Join(fileIn(t), "a"), "", "directory", Failure, "not a directory"},
		{"a file", fileIn(t), "", "directory", Failure, "is no directory"},
		{"empty", private(t, 0o700), "", "directory", OK, "has no node yet"},
		{"a log without a node", private(t, 0o700, "raft.db"), "", "directory", Failure, `has a raft log but no file "node"`},
		{"a damaged identity", private(t, 0o700, "node"), "", "directory", Failure, "identity cannot be read"},
		{"private", private(t, 0o700), "", "owner", OK, "belongs to this user alone"},
		{"open to others", private(t, 0o755), "", "owner", Warning, "chmod 700"},
		{"room", private(t, 0o700), "1048576", "space", OK, "the directory takes at most 140 MiB"},
		{"too little room", private(t, 0o700), "1125899906842624", "space", Warning, "four times the state"},
		{"disk", private(t, 0o700), "", "disk", OK, "median of 9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			configure(t, map[string]string{"SECRETS": secret, "DIR": tc.dir, "MAX_STATE": tc.maxState, "MAX_RECORDS": "1048576"})
			before := tree(t, filepath.Dir(tc.dir))
			c := newChecker(Options{Getenv: os.Getenv})
			c.measure = quickly
			if !c.variables() {
				t.Fatalf("%+v", c.Report)
			}
			c.directory(t.Context())
			c.want(t, tc.item, tc.level, tc.says)
			if diff := cmp.Diff(before, tree(t, filepath.Dir(tc.dir))); diff != "" {
				t.Errorf("the check has changed something (-before +after):\n%s", diff)
			}
		})
	}
}

// quickly writes what measureSync writes, on a disk that is fast whatever else the machine does.
func quickly(dir string) (median, slowest time.Duration, err error) {
	_, _, err = measureSync(dir)
	return time.Millisecond, time.Millisecond, err
}

// Another user's directory is named as such.
func TestForeignDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a directory to another user")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	configure(t, map[string]string{"SECRETS": flotilla.NewSecret().Encode(), "DIR": dir})
	run(t, Options{}).want(t, "owner", Warning, "belongs to the user with the number 12345")
}

func privateDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fileIn(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func secretFile(t *testing.T, secret string, mode fs.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// tree returns the names and modes of all files below a directory, and their contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // "below a file" has no directory
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		all[path] = fi.Mode().String()
		if fi.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[path] += string(content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A node runs with the directory, or has run with it. Peers see it, and it sees itself.
func TestBesideANode(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	secret, dir := flotilla.NewSecret(), t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	node, err := flotilla.Open(t.Context(), flotilla.Config{
		Name: "n0", Dir: dir, Addr: addr, Secrets: []flotilla.Secret{secret}, Timing: flotilla.Fast,
		TLS:        flotilla.TLS{CA: "https://127.0.0.1:1/dir"},
		Logger:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		PeerListen: func(string, string) (net.Listener, error) { return listener, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if err := node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{
		"SECRETS": secret.Encode(), "DIR": dir, "ADDR": addr, "ADVERTISE": addr, "PEERS": addr, "TIMING": "fast", "ACME_CA": "https://127.0.0.1:1/dir",
	}
	with := func(t *testing.T, more map[string]string) Report {
		configure(t, vars)
		configure(t, more)
		t.Setenv("FLOTILLA_ACME_CA", vars["ACME_CA"])
		for _, name := range []string{"ADDR", "ADVERTISE"} {
			if more[name] == "" {
				t.Setenv("FLOTILLA_"+name, vars[name])
			}
		}
		return run(t, Options{})
	}
	t.Run("its own machine", func(t *testing.T) {
		r := with(t, nil)
		r.want(t, "directory", OK, "is in use: the node n0 ("+node.Status().ID[:8]+") runs")
		r.want(t, "port for peers", OK, "as the running node should")
		r.want(t, "peer "+addr, OK, "this is the running node itself")
		r.want(t, "address for peers", OK, "the running node answers")
		r.want(t, "clock", Warning, "neither a peer nor the authority")
		if n := r.Count(Failure); n > 0 {
			t.Errorf("%d checks fail: %+v", n, r)
		}
	})
	other := map[string]string{"DIR": filepath.Join(t.TempDir(), "new"), "ADDR": "127.0.0.1:0", "ADVERTISE": "127.0.0.1:2"}
	also := func(name, value string) map[string]string {
		m := maps.Clone(other)
		m[name] = value
		return m
	}
	t.Run("another machine", func(t *testing.T) {
		r := with(t, other)
		r.want(t, "peer "+addr, OK, "answers with the same secret and settings")
		r.want(t, "clock", OK, "from that of n0")
	})
	t.Run("another secret", func(t *testing.T) {
		with(t, also("SECRETS", flotilla.NewSecret().Encode())).want(t, "peer "+addr, Failure, "another cluster secret", "give all nodes the same")
	})
	t.Run("another timing", func(t *testing.T) {
		with(t, also("TIMING", "lan")).want(t, "peer "+addr, Failure, "Timing is fast there and lan here")
	})
	t.Run("another limit", func(t *testing.T) {
		with(t, also("MAX_STATE", "1048576")).want(t, "peer "+addr, Warning, "MaxState is 67108864 there and 1048576 here")
	})
	t.Run("its port", func(t *testing.T) {
		with(t, also("ADDR", addr)).want(t, "port for peers", Failure, "another process listens", "stop it")
	})
	node.Close()
	t.Run("it has ended", func(t *testing.T) {
		r := with(t, nil)
		r.want(t, "directory", OK, "and opens with the secret")
		r.want(t, "peer "+addr, OK, "this is the address of this node")
		r.want(t, "address for peers", OK, addr+" leads here")
	})
	t.Run("it has ended, and the secret is another", func(t *testing.T) {
		with(t, map[string]string{"SECRETS": flotilla.NewSecret().Encode()}).want(t, "directory", Failure, "none of the given ones is that")
	})
	t.Run("a peer that is not there yet", func(t *testing.T) {
		with(t, other).want(t, "peer "+addr, Warning, "nobody listens there")
	})
}
