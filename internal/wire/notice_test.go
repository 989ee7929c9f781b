package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// Whatever the bearer of a death notice asks, the node is told of that death. It can do nothing
// else.
func TestDeathNotice(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		var told []string
		fail := 2
		accept := func(c *Config) {
			c.DeathNotice = func(_ context.Context, node string, session uint64) error {
				if fail--; fail >= 0 {
					return errors.New("no leader yet")
				}
				told = append(told, fmt.Sprint(node, session))
				return nil
			}
		}
		open(t, net, 1, accept)
		sender := open(t, net, 2, nil)
		// one of them is not there
		b, err := sender.DeathNotice(nodeID(2), 42, []string{nodeAt(1), "z:1"})
		if err != nil {
			t.Fatal(err)
		}
		sender.Close()
		guard := net.Host("guard")
		if err := deathnotice.Rehearse(t.Context(), b, guard.Dial); err == nil ||
			!strings.Contains(err.Error(), "z:1") || strings.Contains(err.Error(), nodeAt(1)) || fail != 2 {
			t.Errorf("the rehearsal: %v; asked %d times", err, 2-fail)
		}
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
		told = nil
		for name, test := range map[string]struct {
			change func(w *deathnotice.Notice)
			want   string
		}{
			"raft":               {func(w *deathnotice.Notice) { w.Protocol = string(peerconn.Raft) }, "a:7373: the node refuses the death notice"},
			"datagrams":          {func(w *deathnotice.Notice) { w.Protocol = string(peerconn.Datagrams) }, "a:7373: the node refuses the death notice"},
			"another authority":  {func(w *deathnotice.Notice) { w.CA = authority(t, secret(9)) }, "a:7373: x509: certificate signed by unknown authority"},
			"a damaged key":      {func(w *deathnotice.Notice) { w.Key = make([]byte, len(w.Key)) }, "a:7373: remote error: tls: error decrypting message"},
			"nobody":             {func(w *deathnotice.Notice) { w.Addrs = nil }, "the death notice names no node"},
			"nobody's authority": {func(w *deathnotice.Notice) { w.CA = []byte("CA") }, "the death notice's authority: x509: malformed certificate"},
		} {
			other := *w
			test.change(&other)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if err := deathnotice.Send(ctx, other.Encode(), guard.Dial); err == nil ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: it passed for a death notice: %v, want %q", name, err, test.want)
			}
			cancel()
		}
		if len(told) > 0 {
			t.Errorf("told %q by what is no death notice", told)
		}
	})
}

// A node that takes no death notices says so.
func TestDeathNoticeRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		open(t, net, 1, nil)
		b, err := open(t, net, 2, nil).DeathNotice(nodeID(2), 1, []string{nodeAt(1)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := deathnotice.Send(ctx, b, net.Host("guard").Dial); err == nil ||
			!strings.Contains(err.Error(), "this node takes no death notices") {
			t.Errorf("the error is %v", err)
		}
	})
}

func authority(t *testing.T, s seal.Secret) []byte {
	t.Helper()
	id, err := peertls.NewNode(s, nodeID(1), "")
	if err != nil {
		t.Fatal(err)
	}
	ca, _, _ := id.Export()
	return ca
}
