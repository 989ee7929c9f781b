package wire

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The bearer of a will has the death told of that it is for, whatever it asks, and can do nothing else.
func TestWill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		var told []string
		fail := 2
		accept := func(c *Config) {
			c.Will = func(_ context.Context, node string, session uint64) error {
				if fail--; fail >= 0 {
					return errors.New("no leader yet")
				}
				told = append(told, fmt.Sprint(node, session))
				return nil
			}
		}
		open(t, net, 1, accept)
		testator := open(t, net, 2, nil)
		b, err := testator.Will(nodeID(2), 42, []string{nodeAt(1), "z:1"}) // one of them is not there
		if err != nil {
			t.Fatal(err)
		}
		testator.Close()
		guard := net.Host("guard")
		if err := deathnotice.Send(t.Context(), b, guard.Dial); err != nil {
			t.Fatal(err)
		}
		if want := nodeID(2) + " 42"; len(told) != 1 || strings.ReplaceAll(told[0], nodeID(2), nodeID(2)+" ") != want {
			t.Errorf("told %q, want %q", told, want)
		}

		w, err := deathnotice.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(w.Cert)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := newIdentity(secret(1), nodeID(1), ""); err != nil || id.verify(cert, x509.ExtKeyUsageServerAuth) == nil {
			t.Errorf("the bearer of a will passes for a node with the bearers of others (%v)", err)
		}
		told = nil
		for name, test := range map[string]struct {
			change func(w *deathnotice.Notice)
			want   string
		}{
			"raft":               {func(w *deathnotice.Notice) { w.Protocol = alpnRaft }, "a:7373: the node refuses the death notice"},
			"notes":              {func(w *deathnotice.Notice) { w.Protocol = alpnNote }, "a:7373: the node refuses the death notice"},
			"another authority":  {func(w *deathnotice.Notice) { w.CA = authority(t, secret(9)) }, "a:7373: x509: certificate signed by unknown authority"},
			"a damaged key":      {func(w *deathnotice.Notice) { w.Key = make([]byte, len(w.Key)) }, "a:7373: remote error: tls: error decrypting message"},
			"nobody":             {func(w *deathnotice.Notice) { w.Addrs = nil }, "the death notice names no node"},
			"nobody's authority": {func(w *deathnotice.Notice) { w.CA = []byte("CA") }, "the death notice's authority: x509: malformed certificate"},
		} {
			other := *w
			test.change(&other)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if err := deathnotice.Send(ctx, other.Encode(), guard.Dial); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: a will was executed that is none: %v, want %q", name, err, test.want)
			}
			cancel()
		}
		if len(told) > 0 {
			t.Errorf("told %q by wills that are none", told)
		}
	})
}

// A node that takes no wills says so.
func TestWillRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		open(t, net, 1, nil)
		b, err := open(t, net, 2, nil).Will(nodeID(2), 1, []string{nodeAt(1)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := deathnotice.Send(ctx, b, net.Host("guard").Dial); err == nil || !strings.Contains(err.Error(), "no wills are taken here") {
			t.Errorf("the error is %v", err)
		}
	})
}

func authority(t *testing.T, s seal.Secret) []byte {
	t.Helper()
	id, err := newIdentity(s, nodeID(1), "")
	if err != nil {
		t.Fatal(err)
	}
	return id.ca.Raw
}

// The name in a bearer's certificate is taken as it was written, or not at all.
func TestBearerNames(t *testing.T) {
	good := "/" + nodeID(7) + "/" + nodeID(2) + "/42"
	for path, ok := range map[string]bool{
		good: true, good + "/1": false, "/" + nodeID(7) + "/" + nodeID(2): false, "/x/" + nodeID(2) + "/42": false, "/" + nodeID(7) + "/x/42": false,
		"/" + nodeID(7) + "/" + nodeID(2) + "/0": false, "/" + nodeID(7) + "/" + nodeID(2) + "/-1": false,
	} {
		id, err := signed(secret(1), willName(path))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, got := bearerOf(id.leaf.Leaf); got != ok {
			t.Errorf("%s: a bearer's name: %v, want %v", path, got, ok)
		}
		if _, _, err := nodeOf(id.leaf.Leaf); err == nil || !strings.Contains(err.Error(), "does not name a node") {
			t.Errorf("%s is taken for a node's name: %v", path, err)
		}
	}
	node, err := newIdentity(secret(1), nodeID(1), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := bearerOf(node.leaf.Leaf); ok {
		t.Error("a node is taken for the bearer of a will")
	}
}
