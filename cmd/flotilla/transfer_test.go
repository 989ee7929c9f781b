package main

import (
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testfiles"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// The majority dies in the middle of an import. Each certificate is there whole or not at all, and
// a second run takes the rest.
func TestImportIsInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		c.SetLatency(5 * time.Millisecond)
		o := operatorOf(c)
		o.watch = true
		dir, year := t.TempDir(), time.Now().Add(365*24*time.Hour)
		all := make(map[string]string)
		for i := range 100 {
			maps.Copy(all, certificate(t, string(rune('a'+i/10))+string(rune('a'+i%10))+".example", year))
		}
		writeFiles(t, dir, all)
		done := make(chan said)
		go func() { done <- o.run(t.Context(), "import", dir) }()
		for len(stored(t, c.Nodes[0])) < 60 {
			time.Sleep(time.Millisecond)
		}
		c.Kill(1)
		c.Kill(2)
		first := <-done
		first.want(t, cli.ExitUnreachable, "repeat it to complete it", "n1:7373: nobody listens there", "\rimporting: ")
		for _, i := range []int{1, 2} {
			c.Restart(i)
		}
		c.Settle()
		if have := len(stored(t, c.Nodes[0])); have < 60 || have >= len(all) || have%3 != 0 {
			t.Errorf("%d records are there after the interruption", have)
		}
		second := o.run(t.Context(), "import", dir)
		second.want(t, cli.ExitOK, "certificates  ")
		if diff := cmp.Diff(all, stored(t, c.Nodes[0])); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if strings.Contains(second.out, "certificates      100") {
			t.Errorf("the second run took all again:\n%s", second.out)
		}
	})
}

// Keys come from the network. No key leads out of the directory, whatever a node says.
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
		w.Write(remote.LoadReply{Values: []remote.Value{
			{Found: true, Bytes: []byte("1")},
			{Found: true, Bytes: []byte("2")},
		}}.Encode())
	})
	port, err := wire.Open(wire.Config{ID: strings.Repeat("a", 32), Secrets: []seal.Secret{raw}, Listener: l, Handler: mux})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	above := t.TempDir()
	env := map[string]string{"FLOTILLA_SECRETS": secret.Encode(), "FLOTILLA_PEERS": l.Addr().String()}
	o := &operator{getenv: func(name string) string { return env[name] }}
	got := o.run(t.Context(), "export", "-plain-keys", filepath.Join(above, "x", "dir"))
	got.want(t, cli.ExitFailed, "refused: ../evil: it cannot be the name of a file here\n", `refused: "evil\x00": it cannot`)
	if n := strings.Count(got.out, "refused: "); n != len(bad) {
		t.Errorf("%d keys were refused, want %d:\n%s", n, len(bad), got.out)
	}
	if diff := cmp.Diff(map[string]string{"x/dir/good/one": "1", "x/dir/good/two": "2"}, testfiles.Read(t, above)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
