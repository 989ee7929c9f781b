package membership

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

// PeerStatus is PeerStatus of the root package.
type PeerStatus struct {
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
	m  map[string]PeerStatus
}

// replace takes down the errors of one round.
func (u *unanswered) replace(errs map[string]error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.m
	u.m = make(map[string]PeerStatus, len(errs))
	for addr, err := range errs {
		p, ok := old[addr]
		if !ok {
			p = PeerStatus{Addr: addr, Since: time.Now()}
		}
		p.Err = Explain(err)
		u.m[addr] = p
	}
}

func (u *unanswered) list() []PeerStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Collect(maps.Values(u.m))
}

// PeerStatus returns the peers with which something is wrong.
func (n *Membership) PeerStatus() []PeerStatus {
	var out []PeerStatus
	known := make(map[string]bool) // addresses
	if n.Replica.Port == nil {
		return nil
	}
	differs := n.settings.differences(n.Up.OwnSettings())
	for id, m := range n.Book.All() {
		d := differs[id]
		delete(differs, id)
		since, err := n.Replica.Port.LastError(id)
		if id == n.Self.ID || n.Replica.Raft.Load() != nil && !n.Replica.IsServer(id) || err == nil && len(d) == 0 {
			continue
		}
		p := PeerStatus{ID: id, Name: m.Name, Addr: m.Addr, Differs: d}
		if err != nil {
			p.Err, p.Since, p.Stopped = Explain(err), since, n.Book.IsLeaving(id)
		}
		known[m.Addr] = true
		out = append(out, p)
	}
	if n.Replica.Raft.Load() == nil || n.Replica.Leader() == "" {
		for _, p := range n.unanswered.list() {
			if !known[p.Addr] {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return strings.Compare(a.Name+"\x00"+a.Addr, b.Name+"\x00"+b.Addr) })
	return out
}

// describe names a peer and says what is wrong.
func (p *PeerStatus) describe() string {
	who := p.Addr
	if p.Name != "" {
		who = p.Name + " at " + p.Addr
	}
	return who + ": " + p.Err
}

// Unreachable lists the peers that cannot be reached, and did not say that they are on their way out.
func (n *Membership) Unreachable() string {
	var all []string
	for _, p := range n.PeerStatus() {
		if p.Err != "" && !p.Stopped {
			all = append(all, p.describe())
		}
	}
	return strings.Join(all, "; ")
}

// Explain says in plain words why a peer cannot be reached. The words stay the same as long as the cause does.
func Explain(err error) string {
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

// WhyNot says what the node is waiting for.
func (n *Membership) WhyNot() string {
	if s := n.Life.Setback.Load(); s != nil {
		return s.Err.Error()
	}
	why := "the cluster has no leader that it can reach"
	if n.Replica.Raft.Load() == nil {
		why = "it has found no cluster yet"
		if w := n.Life.WaitsFor.Load(); w != nil {
			why = *w
		}
	}
	if all := n.Unreachable(); all != "" {
		why += "; " + all
	}
	return why
}
