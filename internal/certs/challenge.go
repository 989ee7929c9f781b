package certs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/hostname"
)

// How a challenge is answered. certmagic's solver stores the token, at acme/<CA>/challenge_tokens/<name>.json, before the CA
// is told to look, and every node reads it from there: for HTTP-01 in httpHandler, for TLS-ALPN-01 in GetCertificate. The
// write is acknowledged when all nodes have it, so it does not matter which of them the CA is sent to. Nothing more is needed.
//
// The solver does one thing more, which must not happen: it listens on port 80 or 443 of the machine, to answer by itself, and only if the
// address is in use does it trust that whoever is there will answer. On a node that serves elsewhere, or that has closed
// its listeners to shut down, it would open a public port, and keep the next process from it. It cannot be told not to, and its place
// cannot be taken: the solvers are made inside the issuer. So it is pointed at an address that is always in use: a
// listener on loopback, on a port that the kernel chose, which closes whatever connects. Pointing it at the node's own listeners
// would do while they are open, and would tie the order of events in the user's program to the issuer's.

// decoy is the listener that certmagic's solver finds in the way.
type decoy struct {
	ln   net.Listener
	done chan struct{}
}

func newDecoy(listen func(network, addr string) (net.Listener, error)) (*decoy, error) {
	ln, err := listen("tcp4", "127.0.0.1:0")
	if err != nil {
		var err6 error
		if ln, err6 = listen("tcp6", "[::1]:0"); err6 != nil {
			return nil, errors.Join(err, err6)
		}
	}
	d := &decoy{ln: ln, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		for {
			conn, err := d.ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				conn.Close()
			}
		}
	}()
	return d, nil
}

// deceive sets up the decoy, once, if an issuer would listen otherwise. It runs before any order, with c.mu held.
func (c *Certs) deceive() error {
	for _, i := range c.config.Issuers {
		acme, ok := i.(*certmagic.ACMEIssuer)
		if !ok || acme.DNS01Solver != nil {
			continue
		}
		if c.decoy == nil {
			d, err := newDecoy(c.Listen)
			if err != nil {
				return fmt.Errorf("flotilla: cannot listen on loopback, which certmagic's challenge solvers need: %w", err)
			}
			c.decoy = d
		}
		c.decoy.attract(acme)
	}
	return nil
}

// attract makes the solvers of i find d. An issuer whose ports were set on purpose is left as it is.
func (d *decoy) attract(i *certmagic.ACMEIssuer) {
	if i.ListenHost != "" || i.AltHTTPPort != 0 || i.AltTLSALPNPort != 0 {
		return
	}
	addr := d.ln.Addr().(*net.TCPAddr)
	i.ListenHost, i.AltHTTPPort, i.AltTLSALPNPort = addr.IP.String(), addr.Port, addr.Port
}

func (d *decoy) close() {
	d.ln.Close()
	<-d.done
}

// challenged reports whether an order of some node waits for name to be proved by TLS-ALPN-01.
func (c *Certs) challenged(ctx context.Context, name string) bool {
	if _, ok := certmagic.GetACMEChallenge(name); ok {
		return true
	}
	return slices.ContainsFunc(c.config.Issuers, func(i certmagic.Issuer) bool {
		safe := certmagic.StorageKeys.Safe
		return c.config.Storage.Exists(ctx, "acme/"+safe(i.IssuerKey())+"/challenge_tokens/"+safe(name)+".json")
	})
}

// httpHandler answers the ACME HTTP-01 challenges of every node of the cluster, and gives all other requests to next. Nil next redirects
// them to https, with the status that Config.Redirect says. It is safe for concurrent use.
func (c *Certs) HTTPHandler(next http.Handler) http.Handler {
	if next == nil {
		next = http.HandlerFunc(c.redirect)
	}
	for _, i := range c.config.Issuers {
		// The first will do: the token is looked up for all issuers of the configuration.
		if acme, ok := i.(*certmagic.ACMEIssuer); ok && !acme.DisableHTTPChallenge {
			return onlyHosts(acme.HTTPChallengeHandler(c.unknown(next)), next)
		}
	}
	return next
}

// onlyHosts keeps requests whose Host is not one away from challenges, which would look for it in the storage.
func onlyHosts(challenges, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := hostname.OfRequest(r); !ok {
			next.ServeHTTP(w, r)
			return
		}
		challenges.ServeHTTP(w, r)
	})
}

// unknown refuses challenges whose token this node does not have and cannot know of: that there is none would be the word of an old state.
func (c *Certs) unknown(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if certmagic.LooksLikeHTTPChallenge(r) && !c.Current() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "flotilla: this node has no lease and does not know all tokens; ask another one", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}
