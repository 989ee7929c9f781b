package acmetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// member is one node as the test sees it. One goroutine starts and kills it. Any may ask it.
type member struct {
	*process.Process
	ip       net.IP
	settings settings
	roots    *x509.CertPool
	issued   *sync.Map // the names for which a certificate was seen at a node with the same ones

	mu      sync.Mutex
	last    int // question
	waiting map[int]chan answer
	dying   answer // the last words of the process; zero: it has not said that it kills itself
}

func newMember(ip net.IP, issued *sync.Map, s settings) *member {
	m := &member{ip: ip, issued: issued, settings: s}
	m.Process = process.New(process.Config{Name: s.Name, Variable: nodeEnv, OnLine: m.onLine})
	return m
}

// start starts the process. It does not wait for the node.
func (m *member) start() error {
	m.mu.Lock()
	m.waiting, m.dying = make(map[int]chan answer), answer{}
	m.mu.Unlock()
	return m.Start(m.settings)
}

// onLine receives an answer of the process, or its last words.
func (m *member) onLine(line []byte) {
	var a answer
	if json.Unmarshal(line, &a) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.waiting[a.ID]; c != nil {
		delete(m.waiting, a.ID)
		c <- a
	} else if a.Dying && !m.dying.Dying {
		m.dying = a
	}
}

// lastCall waits for the end of the process, and returns the storage call at which it killed
// itself.
func (m *member) lastCall() (answer, error) {
	<-m.Exited()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dying.Dying {
		return answer{}, fmt.Errorf("node %s has ended by itself: %s", m.Name(), m.Ended())
	}
	return m.dying, nil
}

// ask sends a question to the node and waits for the answer. It fails with errGone if the process
// ends before.
func (m *member) ask(ctx context.Context, q question) (answer, error) {
	// The limit of the node is shorter: its error says more.
	ctx, cancel := context.WithTimeout(ctx, waitLimit+10*time.Second)
	defer cancel()
	c := make(chan answer, 1)
	m.mu.Lock()
	m.last++
	q.ID = m.last
	m.waiting[q.ID] = c
	m.mu.Unlock()
	line, err := json.Marshal(q)
	if err == nil {
		err = m.Send(line)
	}
	fail := func(err error) (answer, error) {
		return answer{}, fmt.Errorf("node %s, asked to %s %s: %w", m.Name(), q.Ask, q.Name, err)
	}
	if err != nil {
		return fail(fmt.Errorf("%w: %w", errGone, err))
	}
	select {
	case a := <-c:
		if a.Err != "" {
			return fail(errors.New(a.Err))
		}
		return a, nil
	case <-m.Exited():
		select {
		case a := <-c: // it came before the end
			if a.Err == "" {
				return a, nil
			}
		default:
		}
		return fail(errGone)
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}

// shake makes a TLS handshake with the node, as a client of name, and returns the certificate. An
// invalid certificate is a permanent error, except a self-signed one before any node has shown
// another.
func (m *member) shake(ctx context.Context, name string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: m.roots, ServerName: name}}
	conn, err := dialer.DialContext(ctx, "tcp", m.settings.HTTPS)
	if err != nil {
		err = fmt.Errorf("node %s, a handshake for %s: %w", m.Name(), name, err)
		if wrong := (*tls.CertificateVerificationError)(nil); errors.As(err, &wrong) {
			_, late := m.issued.Load(name)
			if late || wrong.UnverifiedCertificates[0].Subject.CommonName != "flotilla: no certificate yet" {
				err = &process.PermanentError{Err: err}
			}
		}
		return nil, err
	}
	m.issued.Store(name, true)
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// serves waits until the node serves name with a certificate for which want, if not nil, returns
// nil. It does not wait for a node that has logged that a certificate and its key do not fit.
func (m *member) serves(
	ctx context.Context, name string, want func(*x509.Certificate) error,
) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	err := process.Await(ctx, waitLimit, func(ctx context.Context) (err error) {
		leaf, err = m.shake(ctx, name)
		if err == nil && want != nil {
			err = want(leaf)
		}
		if line := m.unusable(name); err != nil && line != "" {
			err = &process.PermanentError{Err: fmt.Errorf("%w; node %s has logged: %s", err, m.Name(), line)}
		}
		return err
	})
	return leaf, err
}

// serial returns a check for a certificate with a serial number.
func serial(want string) func(*x509.Certificate) error {
	return func(c *x509.Certificate) error {
		if got := c.SerialNumber.Text(16); got != want {
			return fmt.Errorf("certificate %s is served, want %s", got, want)
		}
		return nil
	}
}

// unusable returns the first line of the log that says that the certificate for a name has the key
// of another.
func (m *member) unusable(name string) string {
	for _, line := range m.Log().Lines() {
		wrong := strings.Contains(line, "unusable certificate") || strings.Contains(line, "does not match public key")
		if wrong && strings.Contains(line, name) {
			return line
		}
	}
	return ""
}
