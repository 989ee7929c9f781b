package flotilla_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// evicting is a cluster that evicts one of its nodes.
type evicting struct {
	*rotating
	out int // the node that is evicted
}

// newEvicting returns a settled cluster that is to evict its last node.
func newEvicting(t *testing.T, nodes int) *evicting {
	e := &evicting{newRotating(t, nodes), nodes - 1}
	e.Settle()
	store(t, e.Nodes[0], "before", "1")
	return e
}

func (e *evicting) stay() (all []int) {
	for i := range e.Nodes {
		if i != e.out {
			all = append(all, i)
		}
	}
	return all
}

// lead has the node that is to be evicted lead.
func (e *evicting) lead() {
	e.t.Helper()
	for e.Leader() != e.out {
		a, err := e.client(e.old).Transfer(e.t.Context(), remote.TransferRequest{
			From: e.Nodes[e.Leader()].Status().ID, To: e.Nodes[e.out].Status().ID,
		})
		if err != nil {
			e.t.Fatal(a, err)
		}
		time.Sleep(time.Second)
	}
}

func (e *evicting) giveNext() {
	for _, i := range e.stay() {
		e.give(i, e.old, e.next)
	}
}

// request asks to evict the node.
func (e *evicting) request(node string, secrets ...flotilla.Secret) remote.EvictRequest {
	e.t.Helper()
	q := remote.EvictRequest{Node: node}
	for _, s := range raw(e.t, secrets...) {
		q.Have = append(q.Have, s.ID())
	}
	return q
}

// evict asks for steps until the eviction is done or refused, or until it is in a step and waits.
func (e *evicting) evict(c *remote.Client, q remote.EvictRequest, until int) remote.EvictReply {
	e.t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		p, err := c.Evict(e.t.Context(), q, "")
		if err == nil && (p.Done || p.Refused || p.Step == until && len(p.Waiting) > 0) {
			return p
		}
		if time.Since(began) > time.Minute {
			e.t.Fatalf("step %d of %d (%s) waits for: %s; %v", p.Step, p.Steps, p.Doing, strings.Join(p.Waiting, "; "), err)
		}
	}
}

func (e *evicting) all() remote.EvictReply {
	e.t.Helper()
	return e.evict(e.client(e.old, e.next), e.request("n3", e.old, e.next), 0)
}

// wantOut checks that nothing that the node knows is of any use.
func (e *evicting) wantOut(keys ...seal.KeyID) {
	e.t.Helper()
	e.wantRefused(e.client(e.old))
	for _, key := range append(keys, raw(e.t, e.old)[0].ID()) {
		e.wantGone(key, e.stay()...)
	}
	var backup bytes.Buffer
	if _, err := e.Nodes[e.stay()[0]].Backup(e.t.Context(), &backup); err != nil {
		e.t.Fatal(err)
	}
	if _, err := flotilla.VerifyBackup(bytes.NewReader(backup.Bytes()), e.old); !errors.Is(err, flotilla.ErrSealed) {
		e.t.Errorf("a backup with the former secret: %v", err)
	}
	for _, i := range e.stay() {
		if got, err := e.Nodes[i].Storage().Load(e.t.Context(), "before"); string(got) != "1" {
			e.t.Errorf("n%d has %q, %v", i, got, err)
		}
	}
}

// A node is evicted whatever it does: while it runs, while it leads, while it is away, and after it
// was removed. Afterwards nothing that it knows is of any use to it.
func TestEvict(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for name, prepare := range map[string]func(*evicting) (node string){
		"runs": func(e *evicting) string { return "n3" },
		"leads": func(e *evicting) string {
			e.lead()
			return "n3"
		},
		"is away": func(e *evicting) string {
			id := e.Nodes[e.out].Status().ID
			e.Kill(e.out)
			return id[:8]
		},
		"was removed": func(e *evicting) string {
			id := e.Nodes[e.out].Status().ID
			e.Kill(e.out)
			a, err := e.client(e.old).Remove(e.t.Context(), remote.RemoveRequest{Node: id, Force: true})
			if err != nil || a.Refused {
				e.t.Fatal(a, err)
			}
			return id
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEvicting(t, 4)
				node, key := prepare(e), flotilla.DataKey(e.Nodes[0])
				id := e.Nodes[e.out].Status().ID
				e.giveNext()
				if p := e.evict(e.client(e.old, e.next), e.request(node, e.old, e.next), 0); !p.Done {
					t.Fatal(p.Doing)
				}
				if p := e.all(); name != "was removed" && !p.Done {
					t.Errorf("once more: %s", p.Doing)
				}
				e.wantOut(key)
				for _, i := range e.stay() {
					e.give(i, e.next)
				}
				// Its process has ended. Another one of the same directory gets nothing.
				e.Kill(e.out)
				e.Restart(e.out)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				why := "it has another cluster secret"
				if err := e.Nodes[e.out].Ready(ctx); err == nil || !strings.Contains(err.Error(), why) {
					t.Errorf("it should say that %s: %v", why, err)
				}
				if s := e.Nodes[e.stay()[0]].Status(); slices.ContainsFunc(s.Members, func(m flotilla.Member) bool { return m.ID == id }) {
					t.Error("the evicted node is a member")
				}
			})
		})
	}
}

// While the evicted node can still prove that it knows the secret, nobody joins: it could be that
// node under another name. The eviction says what it waits for, and goes on by itself from there.
func TestNobodyJoinsDuringEviction(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		e := newEvicting(t, 4)
		c, q := e.client(e.old, e.next), e.request("n3", e.old, e.next)
		p := e.evict(c, q, 2)
		if want := "n0 does not have it; add it to the secrets of that node"; !slices.Contains(p.Waiting, want) {
			t.Fatalf("it waits for %q, want %q", p.Waiting, want)
		}
		e.give(4, e.old)
		e.Add(e.configure)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		why := "n3 was evicted and knows a secret that the cluster uses still"
		if err := e.Nodes[4].Ready(ctx); err == nil || !strings.Contains(err.Error(), why) {
			t.Fatalf("it should say that %s: %v", why, err)
		}
		waits := e.Nodes[0].Status().Waiting
		if !slices.ContainsFunc(waits, func(w flotilla.WaitStatus) bool {
			return w.What == "an eviction has not ended" && strings.Contains(w.Why, "run the command again")
		}) {
			t.Errorf("the status says nothing of the eviction: %+v", waits)
		}
		for i := range 5 {
			if i != e.out {
				e.give(i, e.old, e.next)
			}
		}
		if p := e.evict(c, q, 0); !p.Done {
			t.Fatal(p.Doing)
		}
		e.SettleNodes(0, 1, 2, 4)
	})
}

// What cannot end well does not begin, and changes nothing.
func TestEvictionIsRefused(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		e := newEvicting(t, 4)
		e.giveNext()
		refused := func(q remote.EvictRequest, want string) {
			t.Helper()
			if p := e.evict(e.client(e.old), q, 0); !p.Refused || !strings.Contains(p.Doing, want) {
				t.Errorf("%+v, want %q", p, want)
			}
			if n := len(e.Nodes[0].Status().Members); n != 4 {
				t.Errorf("there are %d members", n)
			}
		}
		refused(e.request("n3", e.old), "n3 knows all the secrets that are given")
		refused(e.request("n9", e.old, e.next), `no member is "n9"`)
		e.give(3, e.old, e.next)
		time.Sleep(10 * time.Second)
		refused(e.request("n3", e.old, e.next), "n3 knows all the secrets that are given")
		other := flotilla.NewSecret()
		if _, err := e.client(e.old).Rotate(t.Context(), rotateSecret(t, e.old, e.next)); err != nil {
			t.Fatal(err)
		}
		refused(e.request("n3", e.old, other), fmt.Sprintf("the cluster is replacing its secret by %v already", raw(t, e.next)[0].ID()))
	})
	synctest.Test(t, func(t *testing.T) {
		e := newEvicting(t, 3)
		e.giveNext()
		e.Kill(1) // the client is at n0
		time.Sleep(5 * time.Second)
		p := e.evict(e.client(e.old), e.request("n2", e.old, e.next), 0)
		if want := "without n2 only 1 of the 2 voters that are left would be there"; !p.Refused || !strings.Contains(p.Doing, want) {
			t.Errorf("%+v, want %q", p, want)
		}
	})
}

// A machine that takes the evicted one's name is not evicted by the same command once more.
func TestReplacementIsNotEvicted(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		e := newEvicting(t, 4)
		former := e.Nodes[e.out].Status().ID
		e.giveNext()
		if p := e.all(); !p.Done {
			t.Fatal(p.Doing)
		}
		e.Kill(e.out)
		if err := os.RemoveAll(e.Config(e.out).Dir); err != nil {
			t.Fatal(err)
		}
		e.give(e.out, e.next)
		e.Restart(e.out)
		e.Settle()
		now := e.Nodes[e.out].Status().ID
		p := e.all()
		if !p.Refused || !strings.Contains(p.Doing, former) || !strings.Contains(p.Doing, now) {
			t.Errorf("it should ask which of the two is meant: %+v", p)
		}
		if !e.Nodes[e.out].Status().Ready {
			t.Error("the new node is not ready")
		}
	})
}

// Accounts and certificates get other keys, and the former certificates are revoked, while every
// node serves.
func TestEvictionReplacesCertificates(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		ca, names := testca.New(t, testca.Config{Trusting: true}), stubca.Names("evict", 5)
		r := newSecrets(t, 4)
		r.Cluster = clustertest.New(t, 4, func(i int, c *flotilla.Config) {
			r.configure(i, c)
			c.TLS.Configure = stubca.Configure(ca, nil)
			flotilla.Offline(c)
		})
		e := &evicting{r, 3}
		var serves []*tls.Config
		for _, n := range e.Nodes {
			cfg, err := n.TLSConfig(names...)
			if err != nil {
				t.Fatal(err)
			}
			serves = append(serves, cfg)
		}
		e.Settle()
		time.Sleep(time.Minute)
		before := make(map[string]*x509.Certificate)
		for _, name := range names {
			before[name] = served(t, serves[0], name)
		}
		e.giveNext()
		p := e.all()
		if !p.Done || !strings.Contains(p.Doing, "1 of 1 accounts, 5 of 5 certificates; revoked: 5") {
			t.Fatalf("%+v", p)
		}
		for _, name := range names {
			old := before[name]
			for _, i := range e.stay() {
				now := served(t, serves[i], name)
				if now.PublicKey.(*ecdsa.PublicKey).Equal(old.PublicKey) {
					t.Errorf("n%d serves %s with the former key", i, name)
				}
			}
			if why, revoked := ca.Revoked(fmt.Sprintf("%x", old.SerialNumber)); !revoked || why.Reason != 1 {
				t.Errorf("the former certificate of %s: revoked %v, %+v", name, revoked, why)
			}
		}
		if n := ca.Accounts(); n != 1 {
			t.Errorf("there are %d accounts", n)
		}
	})
}

// served returns the certificate that a node serves for a name.
func served(t *testing.T, cfg *tls.Config, name string) *x509.Certificate {
	t.Helper()
	c, err := cfg.GetCertificate(&tls.ClientHelloInfo{ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13}})
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

// The majority is lost while a node is evicted. The survivor goes on with the eviction, also if it
// was recovered with the new secret beside the former one, and the others join it afterwards.
func TestEvictionAfterRecovery(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		e := newEvicting(t, 4)
		c, q := e.client(e.old, e.next), e.request("n3", e.old, e.next)
		e.evict(c, q, 2)
		for i := range e.Nodes {
			e.Kill(i)
		}
		e.giveNext()
		if _, err := flotilla.Recover(e.Config(0).Dir, true, e.next, e.old); err != nil {
			t.Fatal(err)
		}
		for i := range e.Nodes {
			e.Restart(i)
		}
		e.SettleNodes(0)
		time.Sleep(10 * time.Second)
		if waits := e.Nodes[0].Status().Waiting; !slices.ContainsFunc(waits, func(w flotilla.WaitStatus) bool {
			return w.What == "an eviction has not ended"
		}) {
			t.Errorf("the status says nothing of the eviction: %+v", waits)
		}
		if p := e.evict(c, q, 0); !p.Done {
			t.Fatal(p.Doing)
		}
		e.SettleNodes(0, 1, 2)
		e.wantRefused(e.client(e.old))
		if e.Nodes[e.out].Status().Ready {
			t.Error("the evicted node is ready")
		}
	})
}

// Two nodes are evicted at once. Neither waits for the certificates of the other.
func TestTwoEvictions(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRotating(t, 5)
		r.Settle()
		e := &evicting{r, 4}
		for i := range 3 {
			e.give(i, e.old, e.next)
		}
		c := e.client(e.old, e.next)
		if p := e.evict(c, e.request("n4", e.old, e.next), 2); !slices.ContainsFunc(p.Waiting, func(w string) bool { return strings.HasPrefix(w, "n3 does not have it") }) {
			t.Fatalf("it waits for %q", p.Waiting)
		}
		for _, node := range []string{"n3", "n4"} {
			if p := e.evict(c, e.request(node, e.old, e.next), 0); !p.Done {
				t.Fatalf("%s: %s", node, p.Doing)
			}
		}
		if n := len(e.Nodes[0].Status().Members); n != 3 {
			t.Errorf("there are %d members", n)
		}
	})
}

// A leader that cannot be evicted keeps the leadership.
func TestLeaderThatCannotBeEvicted(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Test(t, func(t *testing.T) {
		e := newEvicting(t, 3)
		leader := e.Leader()
		p := e.evict(e.client(e.old), e.request(fmt.Sprint("n", leader), e.old), 0)
		if !p.Refused || !strings.Contains(p.Doing, "knows all the secrets that are given") || e.Leader() != leader {
			t.Errorf("%+v, and n%d leads after n%d", p, e.Leader(), leader)
		}
		alone := newRotating(t, 1)
		alone.Settle()
		c, err := remote.Open(remote.Config{Secrets: raw(t, alone.old, alone.next), Peers: flotilla.Static("n0:7373"), Dial: alone.Config(0).PeerDial})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		time.Sleep(5 * time.Second)
		if p := e.evict(c, e.request("n0", alone.old, alone.next), 0); !p.Refused || !strings.Contains(p.Doing, "without n0 only 0 of the 0 voters") {
			t.Errorf("the only voter: %+v", p)
		}
	})
}
