package flotilla

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// peerStatus is PeerStatus of the root package.
type peerStatus struct {
	ID, Name string // empty: not known; at that address nobody has answered yet
	Addr     string // that this node dials
	Err      string // why it cannot be reached, since Since; empty: it can
	Since    time.Time
	Stopped  bool     // it was shut down, by its own word
	Differs  []string // settings that this node has otherwise
}

// unanswered is what the last round of greetings could not reach, by address. The zero unanswered is ready.
type unanswered struct {
	mu sync.Mutex
	m  map[string]peerStatus
}

// replace takes down the errors of one round.
func (u *unanswered) replace(errs map[string]error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.m
	u.m = make(map[string]peerStatus, len(errs))
	for addr, err := range errs {
		p, ok := old[addr]
		if !ok {
			p = peerStatus{Addr: addr, Since: time.Now()}
		}
		p.Err = explain(err)
		u.m[addr] = p
	}
}

func (u *unanswered) list() []peerStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Collect(maps.Values(u.m))
}

// peerStatus returns the peers with which something is wrong.
func (n *membership) peersStatus() []peerStatus {
	var out []peerStatus
	known := make(map[string]bool) // addresses
	if n.replica.Port == nil {
		return nil
	}
	differs := n.settings.differences(n.up.ownSettings())
	for id, m := range n.book.All() {
		d := differs[id]
		delete(differs, id)
		since, err := n.replica.Port.LastError(id)
		if id == n.self.ID || n.replica.Raft.Load() != nil && !n.replica.IsServer(id) || err == nil && len(d) == 0 {
			continue
		}
		p := peerStatus{ID: id, Name: m.Name, Addr: m.Addr, Differs: d}
		if err != nil {
			p.Err, p.Since, p.Stopped = explain(err), since, n.book.IsLeaving(id)
		}
		known[m.Addr] = true
		out = append(out, p)
	}
	if n.replica.Raft.Load() == nil || n.replica.Leader() == "" {
		for _, p := range n.unanswered.list() {
			if !known[p.Addr] {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b peerStatus) int { return strings.Compare(a.Name+"\x00"+a.Addr, b.Name+"\x00"+b.Addr) })
	return out
}

// describe names a peer and says what is wrong.
func (p *peerStatus) describe() string {
	who := p.Addr
	if p.Name != "" {
		who = p.Name + " at " + p.Addr
	}
	return who + ": " + p.Err
}

// unreachable lists the peers that cannot be reached, and did not say that they are on their way out.
func (n *membership) unreachable() string {
	var all []string
	for _, p := range n.peersStatus() {
		if p.Err != "" && !p.Stopped {
			all = append(all, p.describe())
		}
	}
	return strings.Join(all, "; ")
}

// explain says in plain words why a peer cannot be reached. The words stay the same as long as the cause does.
func explain(err error) string {
	var (
		secret  *wire.WrongSecretError
		node    *wire.WrongNodeError
		refused *wire.RefusedError
		call    *wire.CallError
		dns     *net.DNSError
		addr    *net.AddrError
		config  *errs.ConfigError
		record  tls.RecordHeaderError
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.As(err, &secret):
		return fmt.Sprintf("it has another cluster secret (its key ID %v, ours %v)", secret.Have, secret.Want)
	case errors.As(err, &node):
		return fmt.Sprintf("another node, %s, answers there", slogbridge.Short(node.Got))
	case errors.As(err, &refused):
		return "it refuses the connection: " + refused.Reason
	case errors.As(err, &call):
		return "it answers with an error: " + call.Message
	case errors.As(err, &config):
		return config.Error()
	case errors.As(err, &dns) && dns.IsNotFound:
		return "its name is not known to DNS: " + dns.Name
	case errors.As(err, &dns) && dns.IsTimeout:
		return "DNS does not answer for its name " + dns.Name
	case errors.As(err, &dns):
		return "its name " + dns.Name + " cannot be resolved: " + dns.Err
	case errors.As(err, &addr):
		return "its address is wrong: " + addr.Err
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: nobody listens at that address"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to that address"
	case errors.As(err, &record):
		return "TLS: what answers there does not speak TLS, so it is no node of a cluster"
	case errors.As(err, &cert), errors.As(err, &unknown):
		return "TLS: its certificate is not one of this cluster, or a clock is wrong: " + err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time: it is down or cut off, or its port is blocked"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it closes the connection: what answers there is no node, or one that is ending"
	}
	return err.Error()
}

// whyNot says what the node is waiting for.
func (n *membership) whyNot() string {
	if s := n.life.Setback.Load(); s != nil {
		return s.Err.Error()
	}
	why := "the cluster has no leader that it can reach"
	if n.replica.Raft.Load() == nil {
		why = "it has found no cluster yet"
		if w := n.life.WaitsFor.Load(); w != nil {
			why = *w
		}
	}
	if all := n.unreachable(); all != "" {
		why += "; " + all
	}
	return why
}
