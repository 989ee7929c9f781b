package flotilla

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testfiles"
)

// perNode has each node order certificates of its own from the development CA, and records the
// orders.
func perNode(placed *stubca.Orders) func(*Config) {
	return func(c *Config) {
		c.TLS.PerNode = true
		c.TLS.Configure = placed.Configure
	}
}

// ownKey returns the private key that a node has for name, as it is stored.
func ownKey(t *testing.T, n *Node, name string) string {
	t.Helper()
	key, err := certStorage(n).Load(t.Context(), certmagic.StorageKeys.SitePrivateKey(keyspace.DevIssuer, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

// Each node has a key of its own, which is nowhere else. It is still there after a restart of the
// node alone, without another order.
func TestPerNode(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const name = "own.example"
		var placed stubca.Orders
		net := simnet.New()
		configs := make(map[string]*certmagic.Config)
		nodes := trio(t, net, func(c *Config) {
			perNode(&placed)(c)
			c.TLS.Configure = func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
				placed.Configure(cfg, i)
				configs[c.Name] = cfg
			}
		})
		keys := make(map[string]bool)
		serials := make(map[string]bool)
		for _, n := range nodes {
			serveNames(t, []*Node{n}, name)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		placed.Check(t, 3)
		for _, n := range nodes {
			key := ownKey(t, n, name)
			keys[key] = true
			serials[n.certs.Status()[0].Serial] = true
			if _, err := n.Storage().List(t.Context(), "certificates", true); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: certificates in the cluster's storage: %v", n.self.Name, err)
			}
			for k, r, it := []byte(nil), (*state.Value)(nil), n.store.State().Records.Root().Iterator(); ; {
				var ok bool
				if k, r, ok = it.Next(); !ok {
					break
				}
				if bytes.Contains(r.Value, []byte(key)) || bytes.Contains(k, []byte(name)) {
					t.Errorf("%s is in the state that all have", k)
				}
			}
			for _, other := range nodes {
				if paths := testfiles.With(t, other.cfg.Dir, name, "PRIVATE"); len(paths) > 0 {
					t.Errorf("the directory of %s shows a name or a key in %v", other.self.Name, paths)
				}
				if len(testfiles.With(t, other.cfg.Dir, durable.OwnFile)) == 0 {
					t.Errorf("the search finds nothing in the directory of %s", other.self.Name)
				}
			}
		}
		if len(keys) != 3 || len(serials) != 3 {
			t.Errorf("%d keys and %d certificates on three nodes", len(keys), len(serials))
		}

		old := nodes[1].certs.Status()[0].Serial
		if err := configs[nodes[1].self.Name].RenewCertSync(t.Context(), name, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		renewed := nodes[1].certs.Status()[0].Serial
		if renewed == old || !serials[nodes[0].certs.Status()[0].Serial] || !serials[nodes[2].certs.Status()[0].Serial] {
			t.Errorf("after a renewal: %s, before %s", renewed, old)
		}
		placed.Check(t, 4)

		for _, n := range nodes {
			if n != nodes[1] {
				net.Host(n.self.Name).Kill()
			}
			n.Close()
		}
		alone := reviewReopen(t, nodes[1])
		serveNames(t, []*Node{alone}, name)
		time.Sleep(time.Second)
		if got := alone.certs.Status()[0]; got.Serial != renewed || got.Err != nil {
			t.Errorf("after a restart, alone: %+v, want %s", got, renewed)
		}
		placed.Check(t, 4)
	})
}

// The option can be switched on and off. The certificates of before stay where they are.
func TestPerNodeSwitched(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const name = "switched.example"
		var placed stubca.Orders
		n := fleet(t, simnet.New(), []string{"a"}, func(c *Config) {
			perNode(&placed)(c)
			c.TLS.PerNode = false
		})[0]
		var serials []string
		for i, on := range []bool{false, true, false, true} {
			if i > 0 {
				cfg := n.cfg
				if err := n.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				cfg.TLS.PerNode = on
				var err error
				if n, err = Open(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { n.Close() })
				mustBeReady(t, n)
			}
			serveNames(t, []*Node{n}, name)
			time.Sleep(10 * time.Second)
			serials = append(serials, n.certs.Status()[0].Serial)
		}
		if serials[0] == serials[1] || serials[0] == "" || serials[1] == "" || serials[2] != serials[0] || serials[3] != serials[1] {
			t.Errorf("certificates with the option off, on, off, on: %v", serials)
		}
		placed.Check(t, 2)
	})
}

// ownOver opens a storage for a node's own certificates over the storage of the node.
func ownOver(t *testing.T, n *Node, told func(string)) *ownStorage {
	t.Helper()
	o := newOwnStorage(n.storage, told)
	if err := o.open(n.replica.Dir, n.fsm.secrets); err != nil {
		t.Fatal(err)
	}
	return o
}

// The storage answers like the cluster's storage, for the node's own records too, and after a
// restart.
func TestOwnStorageIsLikeTheClusters(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := fleet(t, simnet.New(), []string{"a"}, nil)[0]
		shared := n.Storage()
		own := ownOver(t, n, func(string) {})
		kind := func(err error) string {
			switch {
			case err == nil:
				return ""
			case errors.Is(err, fs.ErrNotExist):
				return "not exist"
			case errors.Is(err, ErrTooLarge):
				return "too large"
			}
			return "other"
		}
		ask := func(s certmagic.Storage) (out []any) {
			ctx := t.Context()
			look := func() {
				for _, key := range []string{"", "/", "certificates", "certificates/ca", "certificates/ca/x/x.crt", "certificates/ca//x/./x.key", "certificates-not", "ocsp", "ocsp/s", "acme/a", "none", "../certificates", "\x00"} {
					value, err := s.Load(ctx, key)
					info, statErr := s.Stat(ctx, key)
					all, listErr := s.List(ctx, key, true)
					some, someErr := s.List(ctx, key, false)
					out = append(out, key, string(value), kind(err), info.Key, info.Size, info.IsTerminal, info.Modified.IsZero(), kind(statErr),
						s.Exists(ctx, key), all, kind(listErr), some, kind(someErr))
				}
			}
			do := func(err error) { out = append(out, kind(err)) }
			look()
			for _, key := range []string{"acme/ca/users/u/u.json", "certificates/ca/x/x.crt", "certificates/ca/x/x.key", "certificates/ca/x/x.json", "certificates-not", "ocsp/s", "z", "certificates/ca/x/x.crt/below", "certificates/ca", "", "/certificates/../acme/b", "\x00"} {
				do(s.Store(ctx, key, []byte("value of "+key)))
			}
			do(s.Store(ctx, "certificates/ca/large/large.crt", make([]byte, MaxValue+1)))
			do(s.Store(ctx, "certificates/ca/n/"+strings.Repeat("n", MaxName), nil))
			look()
			do(s.Delete(ctx, "certificates/ca/x/x.crt"))
			do(s.Delete(ctx, "certificates/none"))
			look()
			do(s.Delete(ctx, "certificates"))
			look()
			do(s.Delete(ctx, ""))
			look()
			do(s.Store(ctx, "certificates/ca/last/last.txt", nil))
			do(s.Store(ctx, "certificates/misplaced", nil))
			do(s.Store(ctx, "last", nil))
			look()
			do(s.Delete(ctx, "last"))
			return out
		}
		want := ask(shared)
		if err := shared.Delete(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		got := ask(own)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers (-cluster's +own):\n%s", diff)
		}
		if keys, err := ownOver(t, n, nil).List(t.Context(), "", true); err != nil || !cmp.Equal(keys, []string{"certificates", "certificates/ca", "certificates/ca/last", "certificates/ca/last/last.txt"}) {
			t.Errorf("after a restart: %v, %v", keys, err)
		}
		if err := shared.Delete(t.Context(), ""); err != nil || !own.Exists(t.Context(), "") {
			t.Errorf("nothing is the cluster's, and there is no root: %v", err)
		}
		// A record of a time before the option was switched on.
		if err := shared.Store(t.Context(), "certificates/ca/old/old.txt", nil); err != nil {
			t.Fatal(err)
		}
		if keys, err := own.List(t.Context(), "", true); err != nil || slices.Contains(keys, "certificates/ca/old/old.txt") {
			t.Errorf("the cluster's certificates are among the node's own: %v, %v", keys, err)
		}
		for key, isOwn := range map[string]bool{"certificates/ca/k/k.txt": true, "/certificates//ca/l/l.txt": true, "ocsp/s": true, "certificates-not": false, "acme/ca/users/u/u.json": false} {
			if err := own.Store(t.Context(), key, nil); err != nil || shared.Exists(t.Context(), key) == isOwn {
				t.Errorf("%q, which is to be the node's own: %v: %v", key, isOwn, err)
			}
		}
	})
}

// A certificate is stored as a whole or not at all, and metadata of one that was replaced are
// dropped.
func TestOwnBundle(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := fleet(t, simnet.New(), []string{"a"}, nil)[0]
		ctx := t.Context()
		var told []string
		own := ownOver(t, n, func(site string) { told = append(told, site) })
		const stem = "certificates/ca/x/x"
		store := func(ext, value string) {
			t.Helper()
			if err := own.Store(ctx, stem+ext, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		has := func(ext, want string) {
			t.Helper()
			if got, _ := own.Load(ctx, stem+ext); string(got) != want {
				t.Errorf("%s is %q, want %q", ext, got, want)
			}
		}
		leaf, id := pemCertificate(t, 1)
		_, otherID := pemCertificate(t, 2)
		meta := metaAbout(id, "this")
		store(".key", "key 1")
		store(".crt", leaf)
		has(".key", "")
		has(".crt", "")
		store(".json", meta)
		has(".key", "key 1")
		has(".crt", leaf)
		if !cmp.Equal(told, []string{"x"}) {
			t.Errorf("told of %q", told)
		}
		store(".json", metaAbout(otherID, "another"))
		has(".json", meta)
		// certmagic deletes the key if it cannot store the rest.
		store(".key", "key 2")
		if err := own.Delete(ctx, stem+".key"); err != nil {
			t.Fatal(err)
		}
		has(".key", "key 1")
		has(".key", "key 1")
		if err := own.Delete(ctx, stem+".key"); err != nil {
			t.Fatal(err)
		}
		has(".key", "")
	})
}

// A file that is damaged, or sealed with another secret, is refused and left as it is.
func TestOwnFileIsRefused(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := fleet(t, simnet.New(), []string{"a"}, func(c *Config) { c.TLS.PerNode = true })[0]
		if err := certStorage(n).Store(t.Context(), "certificates/ca/k/k.txt", []byte("value")); err != nil {
			t.Fatal(err)
		}
		cfg := n.cfg
		n.Close()
		path := filepath.Join(cfg.Dir, durable.OwnFile)
		right, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		refused := func(what, field string, content []byte) {
			t.Helper()
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			n, err := Open(t.Context(), cfg)
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.Field != field || !strings.Contains(err.Error(), "remove it") {
				t.Errorf("%s: %v, want a ConfigError for %s", what, err, field)
			}
			if err == nil {
				n.Close()
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, content) {
				t.Errorf("%s: the file was changed", what)
			}
		}
		for i := 0; i < len(right); i += 7 {
			bad := bytes.Clone(right)
			bad[i] ^= 1 << (i % 8)
			refused("a flipped bit", "Dir", bad)
		}
		refused("a short file", "Dir", right[:len(right)/2])
		refused("nothing", "Dir", nil)
		var other bytes.Buffer
		s := state.New()
		s.Keys = seal.NewKeyring()
		if s.Wrapped, err = s.Keys.Wrap(NewSecret().raw); err == nil {
			err = state.WriteSnapshot(&other, s)
		}
		dir, dirErr := durable.Lock(t.TempDir())
		if err := errors.Join(err, dirErr, dir.WriteFile(durable.OwnFile, other.Bytes()), dir.Close()); err != nil {
			t.Fatal(err)
		}
		sealed, err := os.ReadFile(filepath.Join(dir.Path(), durable.OwnFile))
		if err != nil {
			t.Fatal(err)
		}
		refused("another secret", "Secrets", sealed)
	})
}

// A node that has left keeps no private keys.
func TestPerNodeLeft(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := fleet(t, simnet.New(), []string{"a", "b"}, func(c *Config) { c.TLS.PerNode = true })
		if err := certStorage(nodes[1]).Store(t.Context(), "certificates/ca/k/k.txt", nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := nodes[1].Leave(ctx); err != nil {
			t.Fatal(err)
		}
		again := reviewReopen(t, nodes[1])
		if certStorage(again).Exists(t.Context(), "certificates/ca/k/k.txt") {
			t.Error("it is still there")
		}
	})
}

// A compromised key of one node ends the session tickets of all.
func TestPerNodeCompromised(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := fleet(t, simnet.New(), []string{"a", "b"}, func(c *Config) { c.TLS.PerNode = true })
		awaitTickets(t, nodes, hasCurrent)
		before := nodes[0].store.State().Tickets
		if err := certStorage(nodes[1]).Store(t.Context(), "certificates/ca/a.test/a.test.key.compromised", []byte("k")); err != nil {
			t.Fatal(err)
		}
		awaitTickets(t, nodes, func(k *state.TicketKeys) bool { return k.Index > before.Index && k.Current != nil })
		for _, n := range nodes {
			k := n.store.State().Tickets
			for _, key := range append([][]byte{k.Current, k.Next}, k.Previous...) {
				if bytes.Equal(key, before.Current) || bytes.Equal(key, before.Next) {
					t.Errorf("%s accepts a key of before", n.self.Name)
				}
			}
		}
	})
}

// Every node cleans its own records. The node that cleans for the cluster also cleans what is left
// there from before.
func TestPerNodeIsCleaned(t *testing.T) {
	OnlyLong(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const name = "expired.example"
		var placed stubca.Orders
		nodes := fleet(t, simnet.New(), []string{"a", "b"}, func(c *Config) {
			c.Timing = WAN // an hour of it is done sooner
			perNode(&placed)(c)
		})
		key := certmagic.StorageKeys.SiteCert(keyspace.DevIssuer, name)
		crt, _ := pemCertificate(t, 1) // which is out of date
		if err := nodes[0].Storage().Store(t.Context(), key, []byte(crt)); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			for _, k := range []string{strings.TrimSuffix(key, ".crt") + ".key", key, strings.TrimSuffix(key, ".crt") + ".json"} {
				if err := certStorage(n).Store(t.Context(), k, []byte(crt)); err != nil {
					t.Fatal(err)
				}
			}
			if !certStorage(n).Exists(t.Context(), key) {
				t.Error("it is not stored")
			}
			if _, err := n.TLSConfig("other.example"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(80 * time.Minute)
		synctest.Wait()
		for _, n := range nodes {
			if certStorage(n).Exists(t.Context(), key) {
				t.Errorf("%s keeps an expired certificate", n.self.Name)
			}
		}
		if nodes[0].Storage().Exists(t.Context(), key) {
			t.Error("the cluster keeps an expired certificate")
		}
	})
}

// A certificate that cannot be written to disk is kept in memory and served, and written when the
// disk allows it. It is not ordered again.
func TestPerNodeOnFullDisk(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const name = "full.example"
		var placed stubca.Orders
		n := fleet(t, simnet.New(), []string{"a"}, perNode(&placed))[0]
		obstacle := filepath.Join(n.cfg.Dir, durable.OwnFile+".tmp")
		if err := os.Mkdir(obstacle, 0o700); err != nil {
			t.Fatal(err)
		}
		serveNames(t, []*Node{n}, name)
		time.Sleep(10 * time.Minute)
		placed.Check(t, 1)
		got := n.certs.Status()[0]
		if got.Serial == "" || got.Err != nil {
			t.Errorf("it serves %+v", got)
		}
		if _, err := os.Stat(filepath.Join(n.cfg.Dir, durable.OwnFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the disk has taken it: this shows nothing: %v", err)
		}
		if err := os.Remove(obstacle); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		n.Close()
		again := reviewReopen(t, n)
		serveNames(t, []*Node{again}, name)
		time.Sleep(time.Minute)
		if now := again.certs.Status()[0]; now.Serial != got.Serial {
			t.Errorf("after a restart: %+v, want %s", now, got.Serial)
		}
		placed.Check(t, 1)
	})
}
