package flotilla_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// operator is a client of c that dials from the machine of the node from.
func operator(t *testing.T, c *clustertest.Cluster, from int, secret flotilla.Secret, addrs ...string) *remote.Client {
	t.Helper()
	raw, err := seal.ParseSecret(secret.Encode())
	if err != nil {
		t.Fatal(err)
	}
	client, err := remote.Open(remote.Config{Secrets: []seal.Secret{raw}, Peers: flotilla.Static(addrs...), Dial: c.Config(from).PeerDial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// put is client.Put of text; the value of a key stands after a "=".
func put(t *testing.T, client *remote.Client, mode remote.Mode, pairs ...string) remote.PutReply {
	t.Helper()
	var records []remote.Record
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		records = append(records, remote.Record{Key: key, Value: []byte(value)})
	}
	reply, err := client.Put(t.Context(), mode, records)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestOperatorStoresRecords(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.MaxState = 64 << 10 })
		c.Settle()
		client := operator(t, c, 0, c.Config(0).Secrets[0], "n0:7373", "n1:7373", "n2:7373")
		store(t, c.Nodes[1], "a/old", "1")
		for _, test := range []struct {
			name  string
			mode  remote.Mode
			pairs []string
			want  remote.PutReply
		}{
			{"check of new ones", remote.Check, []string{"b/x=1", "b/y=2"}, remote.PutReply{Outcome: remote.Stored}},
			{"new ones", remote.Keep, []string{"b/x=1", "b/y=2"}, remote.PutReply{Outcome: remote.Stored}},
			{"the same", remote.Keep, []string{"b/x=1", "b/y=2"}, remote.PutReply{Outcome: remote.Same}},
			{"one more", remote.Keep, []string{"b/x=1", "b/z="}, remote.PutReply{Outcome: remote.Stored}},
			{"another value", remote.Keep, []string{"b/x=1", "b/y=3", "b/new=1"}, remote.PutReply{Outcome: remote.Differs, Reason: "the cluster has another value of b/y"}},
			{"check of another value", remote.Check, []string{"b/y=3"}, remote.PutReply{Outcome: remote.Differs, Reason: "the cluster has another value of b/y"}},
			{"overwrite", remote.Overwrite, []string{"b/x=1", "b/y=3"}, remote.PutReply{Outcome: remote.Replaced}},
			{"overwrite with the same", remote.Overwrite, []string{"b/x=1", "b/y=3"}, remote.PutReply{Outcome: remote.Same}},
			{"overwrite nothing", remote.Overwrite, []string{"c=1"}, remote.PutReply{Outcome: remote.Stored}},
			{"onto a directory", remote.Overwrite, []string{"a=1"}, remote.PutReply{Outcome: remote.Refused, Reason: "there are keys below it"}},
			{"below a value", remote.Overwrite, []string{"c/x=1"}, remote.PutReply{Outcome: remote.Refused, Reason: "a key above it has a value"}},
			{"no clean key", remote.Keep, []string{"a/../x=1"}, remote.PutReply{Outcome: remote.Refused, Reason: "the key is not in its clean form, or has more than 1024 bytes"}},
			{"no key", remote.Keep, []string{"=1"}, remote.PutReply{Outcome: remote.Refused, Reason: "the key is not in its clean form, or has more than 1024 bytes"}},
			{"a long key", remote.Keep, []string{strings.Repeat("k", flotilla.MaxName+1)}, remote.PutReply{Outcome: remote.Refused, Reason: "the key is not in its clean form, or has more than 1024 bytes"}},
			{"a long value", remote.Keep, []string{"v=" + strings.Repeat("x", flotilla.MaxValue+1)}, remote.PutReply{Outcome: remote.Refused, Reason: "the value has 1048577 bytes, the limit is 1048576"}},
		} {
			if got := put(t, client, test.mode, test.pairs...); got != test.want {
				t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
			}
		}
		if got := put(t, client, remote.Keep, "full="+strings.Repeat("x", 65<<10)); got.Outcome != remote.Refused || !strings.Contains(got.Reason, "raise Config.MaxState") {
			t.Errorf("over the state's limit: %+v", got)
		}
		wantEverywhere(t, c, "b/x", "1")
		wantEverywhere(t, c, "b/y", "3")

		keys, current, err := client.List(t.Context(), "")
		if diff := cmp.Diff([]string{"a/old", "b/x", "b/y", "b/z", "c"}, keys); diff != "" || !current || err != nil {
			t.Errorf("current %v, error %v, keys (-want +got):\n%s", current, err, diff)
		}
		if keys, _, err := client.List(t.Context(), "b"); err != nil || len(keys) != 3 {
			t.Errorf("below b: %v, %v", keys, err)
		}
		if keys, _, err := client.List(t.Context(), "nothing"); err != nil || len(keys) != 0 {
			t.Errorf("below nothing: %v, %v", keys, err)
		}
		var loaded []string
		for r, err := range client.Load(t.Context(), []string{"b/z", "a", "b/none", "b/x"}) {
			if err != nil {
				t.Fatal(err)
			}
			loaded = append(loaded, r.Key+"="+string(r.Value))
		}
		if diff := cmp.Diff([]string{"b/z=", "b/x=1"}, loaded); diff != "" {
			t.Errorf("loaded (-want +got):\n%s", diff)
		}
	})
}

// What does not fit into one answer comes in several.
func TestOperatorReadsInPages(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		client := operator(t, c, 0, c.Config(0).Secrets[0], "n0:7373")
		want := make(map[string]int)
		var wantKeys []string
		for i := range 2400 { // of 500 bytes: more than a page of names
			key := fmt.Sprintf("%04d/%s/k", i, strings.Repeat("x", 493))
			wantKeys, want[key] = append(wantKeys, key), 1
		}
		for i := range 7 { // of a MiB: more than an answer with values
			key := fmt.Sprintf("big/%d", i)
			wantKeys, want[key] = append(wantKeys, key), 1<<20
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for k := i; k < len(wantKeys); k += 8 {
					c.Nodes[0].Storage().Store(t.Context(), wantKeys[k], make([]byte, want[wantKeys[k]]))
				}
			})
		}
		wg.Wait()
		keys, _, err := client.List(t.Context(), "")
		if diff := cmp.Diff(wantKeys, keys); diff != "" || err != nil {
			t.Fatalf("error %v, keys (-want +got):\n%s", err, diff)
		}
		got := make(map[string]int)
		for r, err := range client.Load(t.Context(), keys) {
			if err != nil {
				t.Fatal(err)
			}
			got[r.Key] = len(r.Value)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sizes (-want +got):\n%s", diff)
		}

		// and no answer is much larger than it should be
		port := operatorPort(t, c)
		for path, body := range map[string][]byte{
			remote.CallList: remote.ListRequest{}.Encode(),
			remote.CallLoad: remote.LoadRequest{Keys: wantKeys[2400:]}.Encode(),
		} {
			_, reply, err := port.CallAddr(t.Context(), "n0:7373", path, body)
			if err != nil || len(reply) > 6<<20 || path == remote.CallList && len(reply) > 9<<17 {
				t.Errorf("%s: an answer of %d bytes, %v", path, len(reply), err)
			}
		}
	})
}

// Any node will do, and a client is neither taken for a member nor worth a line in the nodes' logs.
func TestOperatorIsNoMember(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var log bytes.Buffer
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) {
			cfg.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelInfo}))
		})
		c.Settle()
		time.Sleep(30 * time.Second) // all vote, and nothing more is to be said
		mu.Lock()
		log.Reset()
		mu.Unlock()
		before := c.Nodes[0].Status()
		for i := range 3 {
			for from := range 3 {
				client := operator(t, c, from, c.Config(0).Secrets[0], fmt.Sprintf("n%d:7373", i))
				put(t, client, remote.Keep, fmt.Sprintf("k/%d=%d", i, from))
				if _, current, err := client.List(t.Context(), ""); err != nil || !current {
					t.Errorf("asking n%d from n%d: current %v, %v", i, from, current, err)
				}
				client.Close()
			}
		}
		time.Sleep(5 * time.Minute)
		after := c.Nodes[0].Status()
		after.Index, after.Lease.LeftMillis, after.Tickets.AgeSeconds = before.Index, before.Lease.LeftMillis, before.Tickets.AgeSeconds
		after.Lease.IdleMillis = before.Lease.IdleMillis
		before.Space[0].Bytes += int64(len("k/0"+"0") * 3) // what the clients have stored
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the status has changed (-before +after):\n%s", diff)
		}
		mu.Lock()
		defer mu.Unlock()
		if log.Len() > 0 {
			t.Errorf("the nodes have logged:\n%s", log.String())
		}
	})
}

// lockedWriter is a writer for several goroutines.
type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func TestOperatorWithoutQuorum(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		c.Kill(1)
		client := operator(t, c, 0, c.Config(0).Secrets[0], "n1:7373", "n0:7373", "n2:7373")
		put(t, client, remote.Keep, "two=1") // n1 is dead, and two are a majority
		c.Kill(2)

		start := time.Now()
		_, err := client.Put(t.Context(), remote.Keep, []remote.Record{{Key: "x", Value: []byte("1")}})
		var unreachable *remote.UnreachableError
		if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "n0:7373: the cluster has no leader") || !strings.Contains(err.Error(), "n1:7373: nobody listens there") {
			t.Errorf("a write without a quorum: %v", err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("it took %v to say so", took)
		}
		// what the node has may be old, so it cannot tell whether this is there either
		if reply, err := client.Put(t.Context(), remote.Keep, []remote.Record{{Key: "k", Value: []byte("1")}}); !errors.As(err, &unreachable) {
			t.Errorf("a write of what is there, without a quorum: %+v, %v", reply, err)
		}
		keys, current, err := client.List(t.Context(), "")
		if diff := cmp.Diff([]string{"k", "two"}, keys); diff != "" || current || err != nil {
			t.Errorf("current %v, error %v, keys (-want +got):\n%s", current, err, diff)
		}
	})
}

// A client that gives up does not leave its question on the node.
func TestOperatorGivesUp(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		c.Kill(1)
		c.Kill(2)
		client := operator(t, c, 0, c.Config(0).Secrets[0], "n0:7373")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := client.Put(ctx, remote.Keep, []remote.Record{{Key: "x"}})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A node answers a call from a client that has the secret but sends nonsense. It stores nothing.
func TestOperatorSendsNonsense(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		port := operatorPort(t, c)
		for _, path := range []string{remote.CallList, remote.CallLoad, remote.CallPut} {
			for _, body := range []string{"", "\x00", "\xff", "\x01\x00", "\x01\xff\xff\xff\xff\x0f", "\x09\x01\x01a\x01b"} {
				if _, reply, err := port.CallAddr(t.Context(), "n0:7373", path, []byte(body)); err == nil && len(reply) > 8 {
					t.Errorf("%s of %q: %q", path, body, reply)
				} else if err != nil && !strings.Contains(err.Error(), "malformed encoding (status 400)") {
					t.Errorf("%s of %q: %v", path, body, err)
				}
			}
		}
		if keys, err := c.Nodes[0].Storage().List(t.Context(), "", true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("something was stored: %q, %v", keys, err)
		}
	})
}

// Any node passes on the question of what another one is. The answer has neither values nor names
// of records.
func TestDiagnose(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		client := operator(t, c, 0, c.Config(0).Secrets[0], "n0:7373")
		put(t, client, remote.Keep, "some/key=value")
		for i, n := range c.Nodes {
			s := n.Status()
			r, stacks, err := client.Diagnose(t.Context(), remote.DiagnoseRequest{Node: s.ID, Stacks: i == 1})
			if err != nil || r.ID != s.ID || r.Name != s.Name || r.Cluster != s.Cluster || r.Settings["Timing"] != "lan" || r.Records == 0 || r.Disk.Bytes == 0 {
				t.Errorf("n%d reports %+v: %v", i, r, err)
			}
			if all := string(r.Encode()) + string(stacks); strings.Contains(all, "some/key") || (len(stacks) > 0) != (i == 1) {
				t.Errorf("n%d sends %s", i, all)
			}
		}
		if r, _, err := client.Diagnose(t.Context(), remote.DiagnoseRequest{}); err != nil || r.Name != "n0" {
			t.Errorf("the node that is asked reports %+v: %v", r, err)
		}
		stranger := strings.Repeat("0", 32)
		if _, _, err := client.Diagnose(t.Context(), remote.DiagnoseRequest{Node: stranger}); err == nil || err.Error() != "00000000 is no member" {
			t.Errorf("a stranger: %v", err)
		}
		gone := c.Nodes[2].Status().ID
		c.Kill(2)
		if _, _, err := client.Diagnose(t.Context(), remote.DiagnoseRequest{Node: gone}); err == nil || err.Error() != "nobody listens at its address" {
			t.Errorf("a dead node: %v", err)
		}
		if _, _, err := operatorPort(t, c).CallAddr(t.Context(), "n0:7373", remote.CallDiagnose, []byte{0}); err == nil || !strings.Contains(err.Error(), "malformed encoding (status 400)") {
			t.Errorf("nonsense: %v", err)
		}
	})
}

// operatorPort is the port of a client.
func operatorPort(t *testing.T, c *clustertest.Cluster) *wire.Port {
	t.Helper()
	raw, err := seal.ParseSecret(c.Config(0).Secrets[0].Encode())
	if err != nil {
		t.Fatal(err)
	}
	port, err := wire.OpenClient(wire.Config{Secrets: []seal.Secret{raw}, Dial: c.Config(0).PeerDial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	return port
}
