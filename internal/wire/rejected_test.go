package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// rejected returns how often a node has rejected something, by the reason.
func rejected(p *Port) (all []string) {
	for _, l := range p.Meters.Rejected.List() {
		all = append(all, fmt.Sprintf("%s: %d", strings.Join(l.Values, " "), l.Count))
	}
	return all
}

// What a node rejects is counted by the reason, once for each connection or request.
func TestRejected(t *testing.T) {
	synctest.Parallel(t)
	no := errors.New("not so")
	greet := func(change func(*tls.Config)) func(*testing.T, *simnet.Network, *Port) {
		return func(t *testing.T, n *simnet.Network, _ *Port) { stranger(t, n, change) }
	}
	ask := func(req *raft.AppendEntriesRequest) func(*testing.T, *simnet.Network, *Port) {
		return func(_ *testing.T, _ *simnet.Network, a *Port) {
			_ = send(a, 2, req)
		}
	}
	identity := func(t *testing.T, secret seal.Secret, id string) *peertls.Identity {
		i, err := peertls.NewNode(secret, id, "")
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	for _, test := range []struct {
		name      string
		configure func(*Config)                            // node 2, which rejects
		act       func(*testing.T, *simnet.Network, *Port) // a is node 1
		want      []string                                 // how often, by the reason
	}{
		{"nothing", nil, func(t *testing.T, _ *simnet.Network, a *Port) {
			if err := send(a, 2, entriesBeat()); err != nil {
				t.Error(err)
			}
			if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
				t.Error(err)
			}
		}, nil},
		{"another secret", nil, func(t *testing.T, n *simnet.Network, _ *Port) {
			c := open(t, n, 3, func(c *Config) { c.Secrets = []seal.Secret{secret(9)} })
			c.Call(t.Context(), nodeID(2), "/", nil)
		}, []string{"secret: 1"}},
		{"a forged certificate", nil, func(t *testing.T, n *simnet.Network, _ *Port) {
			stranger(t, n, func(c *tls.Config) {
				c.Certificates = []tls.Certificate{identity(t, secret(9), nodeID(1)).Certificate()}
			})
		}, []string{"handshake: 1"}},
		{"silence", nil, func(t *testing.T, n *simnet.Network, _ *Port) {
			c, err := n.Host("z").Dial(t.Context(), "tcp", nodeAt(2))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.Copy(io.Discard, c) // until the patience of node 2 is over
		}, []string{"handshake: 1"}},
		{"no protocol", nil, greet(func(c *tls.Config) { c.NextProtos = nil }), []string{"protocol: 1"}},
		{"a certificate that names no node", nil, func(t *testing.T, n *simnet.Network, _ *Port) {
			stranger(t, n, func(c *tls.Config) { c.Certificates = []tls.Certificate{identity(t, secret(1), "boss").Certificate()} })
		}, []string{"protocol: 1"}},
		{"too many silent connections", nil, func(t *testing.T, n *simnet.Network, _ *Port) {
			for range peerconn.MaxPendingHost + 2 {
				c, err := n.Host("y").Dial(t.Context(), "tcp", nodeAt(2))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
			}
		}, []string{"limit: 2"}},
		{"too many connections of a node", nil, func(t *testing.T, _ *simnet.Network, a *Port) {
			for range peerconn.MaxPerPeer + 1 {
				a.dialer.Node(t.Context(), nodeID(2), peerconn.RPC)
			}
		}, []string{"limit: 1"}},
		{"a call that is too large", nil, func(t *testing.T, _ *simnet.Network, a *Port) {
			var only http.Protocols
			only.SetUnencryptedHTTP2(true)
			client := &http.Transport{Protocols: &only, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return a.dialer.Node(ctx, nodeID(2), peerconn.RPC)
			}}
			defer client.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://node/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			body, end := io.Pipe()
			defer end.Close()
			req.Body, req.ContentLength = body, MaxRequest+1
			if resp, err := client.RoundTrip(req); err == nil {
				resp.Body.Close()
			}
		}, []string{"limit: 1"}},
		{"datagrams for nobody", func(c *Config) { c.OnDatagram = nil }, func(_ *testing.T, _ *simnet.Network, a *Port) {
			a.SendDatagram(nodeID(2), []byte("x"))
		}, []string{"protocol: 1"}},
		{"no datagrams", nil, func(t *testing.T, _ *simnet.Network, a *Port) {
			c, err := a.dialer.Node(t.Context(), nodeID(2), peerconn.Datagrams)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write([]byte{250, 250, 250, 250})
		}, []string{"protocol: 1"}},
		{"datagrams of an older process", func(c *Config) { c.Fresh = func(string, string) error { return no } }, func(_ *testing.T, _ *simnet.Network, a *Port) {
			a.SendDatagram(nodeID(2), []byte("x"))
		}, []string{"process: 1"}},
		{"a death notice for nobody", nil, func(t *testing.T, n *simnet.Network, a *Port) {
			b, err := a.DeathNotice(nodeID(3), 1, []string{nodeAt(2)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			deathnotice.Send(ctx, b, n.Host("guard").Dial)
		}, []string{"protocol: 1"}},
		{"a connection of no member", func(c *Config) { c.Admit = func(string) error { return no } }, ask(entriesBeat()), []string{"member: 1"}},
		{"a request of an older process", func(c *Config) { c.Fresh = func(string, string) error { return no } }, ask(entriesBeat()), []string{"process: 1"}},
		{"an entry that cannot be", nil, ask(&raft.AppendEntriesRequest{RPCHeader: header(7), Term: 1}), []string{"protocol: 1"}},
		{"a term that cannot be", func(c *Config) { c.Term = func() uint64 { return 1 } }, ask(&raft.AppendEntriesRequest{RPCHeader: header(1), Term: 1 << 40}), []string{"term: 1"}},
		{"another log", func(c *Config) { c.Compare = func(string, uint64, history.Claim) error { return no } }, ask(entries(2, 3)), []string{"log: 1"}},
		{"a candidate that must not lead", func(c *Config) { c.MayLead = func(uint64) error { return no } }, func(_ *testing.T, _ *simnet.Network, a *Port) {
			a.Transport().RequestVote(raft.ServerID(nodeID(2)), "", &raft.RequestVoteRequest{RPCHeader: header(1), Term: 1}, new(raft.RequestVoteResponse))
		}, []string{"election: 1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				a := open(t, n, 1, func(c *Config) { c.Incarnation = "older" })
				b := open(t, n, 2, func(c *Config) {
					c.OnDatagram = func(string, []byte) {}
					if test.configure != nil {
						test.configure(c)
					}
				})
				ack(b)
				test.act(t, n, a)
				time.Sleep(10 * time.Millisecond)
				if diff := cmp.Diff(test.want, rejected(b)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
	t.Run("raft does not run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New()
			a, b := open(t, n, 1, nil), open(t, n, 2, nil)
			send(a, 2, entriesBeat())
			if diff := cmp.Diff([]string{"unready: 1"}, rejected(b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	})
}
