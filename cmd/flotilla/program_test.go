package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flotilla-ha/flotilla"
)

// TestMain makes this binary the command itself when it runs under the command's name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "flotilla" {
		main()
	}
	os.Exit(m.Run())
}

// TestProgram runs the scripts in testdata/program. They run the command as a process, with "exec
// flotilla", and show what TestScripts cannot: that main connects the command with streams,
// environment, signals and the network. $PEERS is the address of a node, the file secret holds its
// secret, and $SILENT is the address of one that answers nothing. The command "asked" waits until
// somebody has connected to $SILENT, and "joined NAME" until the node has another member.
func TestProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	secret := flotilla.NewSecret()
	node, err := flotilla.Open(t.Context(), flotilla.Config{
		Name:       "n0",
		Dir:        t.TempDir(),
		Advertise:  listener.Addr().String(),
		Secrets:    []flotilla.Secret{secret},
		Timing:     flotilla.Fast,
		TLS:        flotilla.TLS{CA: "https://127.0.0.1:1/dir"}, // nobody answers there
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
	testscript.RunT(inSequence{t}, testscript.Params{
		Dir:                "testdata/program",
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			silent := listen(env.T().(inSequence))
			env.Values["silent"] = silent
			env.Setenv("SILENT", silent.Addr().String())
			env.Setenv("PEERS", listener.Addr().String())
			env.Setenv("PATH", filepath.Join(env.WorkDir, "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"))
			writeFiles(t, env.WorkDir, map[string]string{"secret": secret.Encode() + "\n"})
			if err := os.Mkdir(filepath.Join(env.WorkDir, "bin"), 0o700); err != nil {
				return err
			}
			return os.Symlink(self, filepath.Join(env.WorkDir, "bin", "flotilla"))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"asked": func(ts *testscript.TestScript, _ bool, _ []string) {
				conn, err := ts.Value("silent").(net.Listener).Accept()
				ts.Check(err)
				ts.Defer(func() { conn.Close() })
			},
			"joined": func(ts *testscript.TestScript, _ bool, args []string) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				for s := range node.Watch(ctx) {
					if slices.ContainsFunc(s.Members, func(m flotilla.Member) bool { return m.Name == args[0] && m.Present }) {
						return
					}
				}
				ts.Fatalf("%s has not joined", args[0])
			},
		},
	})
}

// inSequence runs scripts one after the other, so that the node outlives them.
type inSequence struct{ *testing.T }

func (t inSequence) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(inSequence{t}) })
}
func (t inSequence) Parallel()     {}
func (t inSequence) Verbose() bool { return testing.Verbose() }

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
