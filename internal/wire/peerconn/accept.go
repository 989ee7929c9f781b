package peerconn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// AcceptConfig describes an Acceptor. All fields are needed.
type AcceptConfig struct {
	Listener   net.Listener              // Close it to end the Acceptor
	Identities func() peertls.Identities // one of them must have signed the peer's certificate
	Services   map[Protocol]Service      // what is not here is refused
	Life       *Life                     // bounds all goroutines
	Conns      *Set                      // tracks the connections
	Peers      *Table                    // learns of peers that connect
	Logger     *slog.Logger              // gets what goes wrong
	Throttle   *Throttle                 // bounds the lines about one host
	Rejected   *meter.Counters           // counts what is refused, by the reason
}

// Acceptor takes the inbound connections of a node and hands them to its services.
type Acceptor struct {
	cfg       AcceptConfig
	limiter   *limiter
	protocols []string
}

// Accept begins to accept connections.
func Accept(cfg AcceptConfig) *Acceptor {
	a := &Acceptor{cfg: cfg, limiter: newLimiter()}
	for _, p := range []Protocol{Raft, RPC, Datagrams} {
		if cfg.Services[p] != nil {
			a.protocols = append(a.protocols, string(p))
		}
	}
	cfg.Life.Go(a.run)
	return a
}

// Pending returns the number of connections that have not authenticated yet.
func (a *Acceptor) Pending() int { return a.limiter.len() }

// run takes connections until the listener is closed. Errors such as a lack of file descriptors
// pass.
func (a *Acceptor) run() {
	life := a.cfg.Life
	var delay time.Duration
	for {
		raw, err := a.cfg.Listener.Accept()
		if err != nil {
			if life.Ended() {
				return
			}
			if errors.Is(err, net.ErrClosed) {
				a.cfg.Logger.Error("the listener of the cluster port was closed", "error", err)
				return
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			if a.cfg.Throttle.Pass("accept") {
				a.cfg.Logger.Warn("cannot accept connections of peers at the moment", "error", err)
			}
			select {
			case <-time.After(delay):
			case <-life.Done():
			}
			continue
		}
		delay = 0
		c := a.cfg.Conns.Track(raw)
		if c == nil {
			raw.Close()
			return
		}
		p, full := a.limiter.enter(c)
		if full {
			a.cfg.Rejected.Inc(TooMany)
		}
		if !life.Go(func() { a.greet(c, p) }) {
			a.limiter.leave(p)
			c.Close()
		}
	}
}

// greet authenticates an inbound connection and hands it on.
func (a *Acceptor) greet(c *Conn, p *pending) {
	serve, err := a.admit(c)
	a.limiter.leave(p)
	if err != nil {
		if refusal, ok := errors.AsType[*Refusal](err); ok {
			a.cfg.Rejected.Inc(refusal.Reason)
		}
		c.Close()
		return
	}
	a.cfg.Peers.Observe(c.Peer().ID)
	serve()
}

// admit does the handshake of an inbound connection, and answers. It returns what serves it.
func (a *Acceptor) admit(c *Conn) (serve func(), err error) {
	c.raw.SetDeadline(time.Now().Add(HandshakeTimeout))
	var sni string
	tc := tls.Server(c.raw, a.cfg.Identities().Server(a.protocols, &sni))
	if err := tc.Handshake(); err != nil {
		return nil, a.complain(c.raw.RemoteAddr(), sni, err)
	}
	state := tc.ConnectionState()
	peer, err := peertls.PeerOf(state.PeerCertificates[0])
	if err != nil {
		return nil, Refuse(BadProtocol, err)
	}
	protocol := Protocol(state.NegotiatedProtocol)
	signer, _ := a.cfg.Identities().SignerOf(state.PeerCertificates[0])
	c.identify(peer, protocol, true, signer)
	if a.cfg.Identities().Find(signer) == nil {
		return nil, Refuse(BadSecret, errDropped)
	}
	c.Conn = tc
	service, err := a.choose(c, peer, protocol)
	if err != nil {
		a.cfg.Logger.Debug("refused a connection", "peer", peer.ID, "addr", c.raw.RemoteAddr(), "reason", err)
		tc.Write(peertls.Answer{Refused: true, Reason: err.Error()}.Encode())
		return nil, err
	}
	serve, cancel := service.Take(c)
	if _, err := tc.Write(peertls.Answer{}.Encode()); err != nil {
		cancel()
		return nil, err
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		cancel()
		return nil, err
	}
	return serve, nil
}

// choose returns the service for an authenticated connection, or why there is none.
func (a *Acceptor) choose(c *Conn, peer peertls.Peer, protocol Protocol) (Service, error) {
	service := a.cfg.Services[protocol]
	switch {
	case service == nil:
		return nil, Refuse(BadProtocol, errors.New("no protocol was chosen"))
	case peer.Notice != nil && protocol != RPC:
		return nil, Refuse(BadProtocol, errors.New("the bearer of a death notice may only deliver it"))
	}
	if err := service.Admit(peer); err != nil {
		return nil, err
	}
	if !a.cfg.Peers.enter(peer.ID) {
		return nil, Refuse(TooMany, fmt.Errorf("there are %d connections from this node already", MaxPerPeer))
	}
	c.AtClose(func() { a.cfg.Peers.leave(peer.ID) })
	return service, nil
}

// complain logs a failed handshake of an inbound connection, and returns it as a refusal. Of wrong
// secrets it says one line a minute for each host. What this node has closed itself is no refusal.
func (a *Acceptor) complain(from net.Addr, sni string, err error) error {
	kid, ok := peertls.KeyOfServerName(sni)
	if all := a.cfg.Identities(); ok && all.Find(kid) == nil {
		if a.cfg.Throttle.Pass("in " + hostOf(from)) {
			a.cfg.Logger.Warn(fmt.Sprintf("the peer at %v dialled with another cluster secret (its key ID %v, ours %v)",
				from, kid, all[0].KeyID()))
		}
		return Refuse(BadSecret, err)
	}
	a.cfg.Logger.Debug("handshake with a peer failed", "addr", from, "error", err)
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return Refuse(BadHandshake, err)
}
