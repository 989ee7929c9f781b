package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/wire/datagram"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
	"github.com/flotilla-ha/flotilla/internal/wire/rafttransport"
	"github.com/flotilla-ha/flotilla/internal/wire/rpc"
)

// Port is the open TCP port of a node and all connections of the node to its peers. Its methods may
// be called from several goroutines at once.
type Port struct {
	// Meters count what the Port does.
	Meters Meters

	cfg       Config
	callbacks callbacks
	life      *peerconn.Life
	conns     *peerconn.Set
	peers     *peerconn.Table
	dialer    *peerconn.Dialer
	acceptor  *peerconn.Acceptor
	rpc       *rpc.Service
	datagrams *datagram.Service
	raft      *rafttransport.Endpoint

	changed    notify.Signal // of secrets
	mu         sync.Mutex
	secrets    []seal.Secret
	identities peertls.Identities // of secrets
}

// Open begins to accept connections on cfg.Listener. When it returns an error the listener is still
// the caller's.
func Open(cfg Config) (*Port, error) {
	if !peertls.ValidID(cfg.ID) {
		return nil, fmt.Errorf("node ID %q is not 32 lower-case hexadecimal digits", cfg.ID)
	}
	if len(cfg.Secrets) == 0 {
		return nil, errors.New("no cluster secret")
	}
	if cfg.Listener == nil {
		return nil, errors.New("no listener")
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Handler == nil {
		cfg.Handler = http.NotFoundHandler()
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = rpcTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	identities, err := peertls.NewNodes(cfg.Secrets, cfg.ID, cfg.Incarnation)
	if err != nil {
		return nil, err
	}
	p := &Port{cfg: cfg, life: peerconn.NewLife(), conns: peerconn.NewSet(), peers: peerconn.NewTable()}
	p.secrets, p.identities = cfg.Secrets, identities
	p.callbacks = callbacks{&p.cfg}
	p.start()
	return p, nil
}

// SetSecrets replaces the secrets, see Config.Secrets. Connections that were made with another one
// are closed: who needs them makes new ones.
func (p *Port) SetSecrets(secrets []seal.Secret) error {
	if len(secrets) == 0 {
		return errors.New("no cluster secret")
	}
	p.mu.Lock()
	next, err := p.identities.Renew(secrets, p.cfg.ID, p.cfg.Incarnation)
	differs := err == nil && !slices.Equal(p.secrets, secrets)
	if err == nil {
		p.secrets, p.identities = secrets, next
	}
	p.mu.Unlock()
	if differs {
		p.changed.Notify()
	}
	if err != nil {
		return err
	}
	for _, c := range p.conns.All() {
		if made := c.Secret(); made != (seal.KeyID{}) && next.Find(made) == nil {
			c.Close()
		}
	}
	return nil
}

// SecretsChanged returns a channel that is closed the next time SetSecrets changes the secrets, or
// their order. What DeathNotice has made before may be refused then.
func (p *Port) SecretsChanged() <-chan struct{} { return p.changed.Wait() }

// current returns the identities as they are now.
func (p *Port) current() peertls.Identities {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.identities
}

// start builds the parts, from the bottom to the top.
func (p *Port) start() {
	cfg, throttle := &p.cfg, peerconn.NewThrottle(time.Minute)
	p.dialer = peerconn.NewDialer(peerconn.DialConfig{
		Identities: p.current,
		Dial:       cfg.Dial,
		Resolve:    p.callbacks.Resolve,
		Fresh:      p.callbacks.Fresh,
		Life:       p.life,
		Conns:      p.conns,
		Peers:      p.peers,
		Logger:     cfg.Logger,
		Throttle:   throttle,
	})
	p.rpc = rpc.New(rpc.Config{
		Dialer:      p.dialer,
		Rejected:    &p.Meters.Rejected,
		Life:        p.life,
		Peers:       p.peers,
		Handler:     cfg.Handler,
		DeathNotice: cfg.DeathNotice,
		Timeout:     cfg.Timeout,
		Logger:      cfg.Logger,
	})
	p.datagrams = datagram.New(datagram.Config{
		Dialer:     p.dialer,
		Life:       p.life,
		Peers:      p.peers,
		OnDatagram: cfg.OnDatagram,
		Fresh:      p.callbacks.Fresh,
		Timeout:    cfg.Timeout,
		Logger:     cfg.Logger,
		Throttle:   throttle,
		Rejected:   &p.Meters.Rejected,
	})
	p.raft = rafttransport.NewEndpoint(rafttransport.Config{
		ID:       cfg.ID,
		Dialer:   p.dialer,
		Life:     p.life,
		Peers:    p.peers,
		Policy:   p.callbacks,
		History:  p.callbacks,
		Node:     p.callbacks,
		Timeout:  cfg.Timeout,
		Logger:   cfg.Logger,
		Throttle: throttle,
		Rejected: &p.Meters.Rejected,
	})
	p.acceptor = peerconn.Accept(peerconn.AcceptConfig{
		Listener:   cfg.Listener,
		Identities: p.current,
		Services: map[peerconn.Protocol]peerconn.Service{
			peerconn.Raft: p.raft, peerconn.RPC: p.rpc, peerconn.Datagrams: p.datagrams,
		},
		Life:     p.life,
		Conns:    p.conns,
		Peers:    p.peers,
		Logger:   cfg.Logger,
		Throttle: throttle,
		Rejected: &p.Meters.Rejected,
	})
}

// Addr returns the address of the listener.
func (p *Port) Addr() net.Addr { return p.cfg.Listener.Addr() }

// Transport returns the transport for this node's raft. Until it is first called, and after the
// Transport was closed, raft connections of peers are refused. After Close of a Transport, which
// raft.Shutdown calls, Transport makes a new one. After Close of the Port it returns a stopped one.
func (p *Port) Transport() *Transport { return p.raft.Transport() }

// Call posts body to path at the node id, which must prove that it is that node, and returns its
// answer. It does not repeat a call: after an error, except one from dialling, the peer may or may
// not have carried it out. The call lasts as long as ctx, and ends earlier when the path to the
// peer dies.
func (p *Port) Call(ctx context.Context, id, path string, body []byte) ([]byte, error) {
	return p.rpc.Call(ctx, id, path, body)
}

// CallAddr posts body to path at whatever node is at addr, host:port, and returns that node's ID
// and its answer. The ID is also returned with a *RPCError.
func (p *Port) CallAddr(ctx context.Context, addr, path string, body []byte) (id string, reply []byte, err error) {
	return p.rpc.CallAddr(ctx, addr, path, body)
}

// StreamAddr is CallAddr for an answer of any length, which it copies to w as it comes. After an
// error a part of it may have been copied.
func (p *Port) StreamAddr(ctx context.Context, addr, path string, body []byte, w io.Writer) (id string, err error) {
	return p.rpc.StreamAddr(ctx, addr, path, body, w)
}

// SendDatagram sends a datagram to the node id, for that node's Config.OnDatagram. It never blocks
// and promises nothing, see package datagram. The caller may use the slice again after the call.
func (p *Port) SendDatagram(id string, note []byte) { p.datagrams.Send(id, note) }

// DatagramAnswered says that the node id has just answered a recent datagram by one of its own.
// That spares the question whether it is still there.
func (p *Port) DatagramAnswered(id string) { p.peers.DatagramAnswered(id) }

// LastError returns why the node id cannot be reached, and since when: the error of the last dial.
// It is nil if nobody dialled, if the dial worked, or if the node was seen since.
func (p *Port) LastError(id string) (since time.Time, err error) { return p.peers.LastError(id) }

// BelievedDead reports whether the process of the node id is believed to be gone: its port refused
// the last dial, it has not been seen since, and no authenticated connection from it is open. It is
// false for a node that was never dialled. This is evidence and no proof: a firewall that resets
// everything looks the same, and so does a wrong address while the node says nothing.
func (p *Port) BelievedDead(id string) bool { return p.peers.BelievedDead(id) }

// Recheck closes all connections, except those for RPCs, of incarnations that Config.Fresh refuses
// by now. RPCs are refused one by one, so that the caller learns why.
func (p *Port) Recheck() {
	for _, c := range p.conns.All() {
		peer := c.Peer()
		if c.Protocol() != peerconn.RPC && p.callbacks.Fresh(peer.ID, peer.Incarnation) != nil {
			c.Close()
		}
	}
}

// Close closes the listener and every connection, ends the Transport, and waits for the Port's
// goroutines, RPCs being answered among them. That takes as long as Config.Handler does once its
// context has ended, and a second at most when a peer has just broken the rules of HTTP/2. It may
// be called again.
func (p *Port) Close() error {
	if !p.life.End() {
		p.life.Wait()
		return nil
	}
	err := p.cfg.Listener.Close()
	p.raft.Close()
	p.rpc.Close()
	p.conns.Close()
	p.life.Wait()
	return err
}
