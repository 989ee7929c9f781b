package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// A dialler's half of a TLS 1.3 handshake succeeds before the server has judged it. So the server says first, before the
// protocol begins, whether it takes the connection.
const (
	answerAccept = 1 // nothing follows
	answerRefuse = 2 // one byte of length and a text follow
)

const maxReason = 255 // bytes in the text of a refusal

// accept takes connections until the listener is closed. Errors such as a lack of file descriptors pass.
func (p *Port) accept() {
	var delay time.Duration
	for {
		raw, err := p.cfg.Listener.Accept()
		if err != nil {
			if p.isClosed() {
				return
			}
			if errors.Is(err, net.ErrClosed) {
				p.cfg.Logger.Error("the listener of the cluster port was closed", "error", err)
				return
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			if p.said.pass("accept") {
				p.cfg.Logger.Warn("cannot accept connections of peers at the moment", "error", err)
			}
			select {
			case <-time.After(delay):
			case <-p.done:
			}
			continue
		}
		delay = 0
		c, ok := p.track(raw)
		if !ok {
			raw.Close()
			return
		}
		g := p.gate.enter(c)
		if !p.spawn(func() { p.greet(c, g) }) {
			p.gate.leave(g)
			c.Close()
		}
	}
}

// greet authenticates an inbound connection and hands it on.
func (p *Port) greet(c *conn, g *greet) {
	serve, err := p.admit(c)
	p.gate.leave(g)
	if err != nil {
		c.Close()
		return
	}
	p.peers.heard(c.peer)
	serve()
}

// admit does the handshake of an inbound connection, and answers. It returns what the connection is to be given to.
func (p *Port) admit(c *conn) (serve func(), err error) {
	c.raw.SetDeadline(time.Now().Add(greetTimeout))
	var sni string
	tc := tls.Server(c.raw, p.serverTLS(&sni))
	if err := tc.Handshake(); err != nil {
		p.complain(c.raw.RemoteAddr(), sni, err)
		return nil, err
	}
	state := tc.ConnectionState()
	id, t, isWill := bearerOf(state.PeerCertificates[0])
	process := ""
	if !isWill {
		if id, process, err = nodeOf(state.PeerCertificates[0]); err != nil {
			return nil, err
		}
	}
	c.identify(id, process, state.NegotiatedProtocol)
	c.will, c.Conn = t, tc
	switch protocol := state.NegotiatedProtocol; {
	case protocol == alpnCall:
		serve = func() { p.calls.take(c) }
	case isWill:
		err = errors.New("the bearer of a will may only call")
	case protocol == alpnRaft:
		if t := p.current(); t == nil || t.ended() {
			err = errors.New("raft is not running here")
		} else {
			serve, err = func() { t.serve(c) }, p.cfg.Admit(id)
		}
	case protocol == alpnNote:
		if p.cfg.Noted == nil {
			err = errors.New("notes are not taken here")
		}
	default:
		err = errors.New("no protocol was chosen")
	}
	if err == nil && state.NegotiatedProtocol == alpnNote { // a call may be to hear of it, and raft is asked for each RPC
		err = p.fresh(id, process)
	}
	if err == nil {
		if !p.peers.enter(id) {
			err = fmt.Errorf("there are %d connections from this node already", maxConns)
		} else {
			c.atClose(func() { p.peers.leave(id) })
		}
	}
	if err != nil {
		p.cfg.Logger.Debug("refused a connection", "peer", id, "addr", c.raw.RemoteAddr(), "reason", err)
		text := reason(err)
		tc.Write(append([]byte{answerRefuse, byte(len(text))}, text...))
		return nil, err
	}
	if state.NegotiatedProtocol == alpnNote {
		r := p.notes.enter(c)
		defer func() {
			if err != nil {
				r.leave()
			}
		}()
		serve = r.serve
	}
	if _, err := tc.Write([]byte{answerAccept}); err != nil {
		return nil, err
	}
	return serve, c.raw.SetDeadline(time.Time{})
}

// complain logs a failed handshake of an inbound connection, at most once a minute for one host.
func (p *Port) complain(from net.Addr, sni string, err error) {
	kid, ok := kidOfName(sni)
	if ok && !p.has(kid) {
		if p.said.pass("in " + hostOf(from)) {
			p.cfg.Logger.Warn(fmt.Sprintf("the peer at %v dialled with another cluster secret (its key ID %v, ours %v)", from, kid, p.ids[0].kid))
		}
		return
	}
	p.cfg.Logger.Debug("handshake with a peer failed", "addr", from, "error", err)
}

// has reports whether kid is the ID of one of our secrets.
func (p *Port) has(kid seal.KeyID) bool {
	for _, id := range p.ids {
		if id.kid == kid {
			return true
		}
	}
	return false
}

// reason returns the text of err, cut to what a refusal can carry.
func reason(err error) string {
	text := err.Error()
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	return strings.ToValidUTF8(text, "")
}
