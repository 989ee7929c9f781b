package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/wire"
)

// UnreachableError says that no node answered, and why.
type UnreachableError struct {
	// Faults has one element for each address, in the order in which they were tried.
	Faults []Fault

	// Err is why there is no address to try. Nil: there was one.
	Err error
}

// Fault says what went wrong at one address.
type Fault struct {
	// Addr is the address, host:port.
	Addr string

	// Err is the error of the connection or of the call.
	Err error
}

// Error returns one line for each address, with the remedy.
func (e *UnreachableError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	var b strings.Builder
	b.WriteString("no node could answer:")
	for _, f := range e.Faults {
		b.WriteString("\n  " + f.Addr + ": " + f.Explain())
	}
	return b.String()
}

// Unwrap returns the causes.
func (e *UnreachableError) Unwrap() []error {
	if e.Err != nil {
		return []error{e.Err}
	}
	errs := make([]error, len(e.Faults))
	for i, f := range e.Faults {
		errs[i] = f.Err
	}
	return errs
}

// Explain says what is wrong, and what to do about it.
func (f Fault) Explain() string {
	var wrong *wire.WrongSecretError
	var refused *wire.RefusedError
	var answer *wire.RPCError
	var dns *net.DNSError
	var noTLS tls.RecordHeaderError
	var op *net.OpError
	switch err := f.Err; {
	case errors.As(err, &wrong):
		return "the node has another cluster secret (its key ID " + wrong.Have.String() +
			", ours " + wrong.Want.String() + "); give the secret of its cluster"
	case errors.As(err, &refused):
		return refused.Error()
	case errors.As(err, &answer):
		return explainStatus(answer)
	case errors.As(err, &dns):
		return "the host name leads nowhere (" + dns.Err + ")"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there; is the node running, " +
			"and is this the port for its peers (7373 unless it was given another)?"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "no answer in time; is the address right, and does every firewall let its port pass?"
	case errors.As(err, &noTLS):
		return notANode(noTLS)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection ended before there was an answer (" + err.Error() +
			"); does the node still run, and is this its port for peers?"
	case errors.As(err, &op) && op.Op == "dial":
		return "it cannot be reached (" + op.Err.Error() + ")"
	default:
		return notANode(err)
	}
}

func notANode(err error) string {
	return "what listens there is not a node's port for its peers (" + err.Error() +
		"); give the address that the other nodes dial, port 7373 unless it was given another"
}

func explainStatus(e *wire.RPCError) string {
	switch e.Status {
	case http.StatusMisdirectedRequest:
		return "the cluster has no leader; a majority of its voters must run and reach one another: " +
			"start those that are missing, then repeat this"
	case http.StatusNotFound:
		return "the node does not know the question; it runs an older version of flotilla: upgrade it"
	}
	return "the node cannot answer now: " + trim(e.Message)
}

func trim(message string) string { return strings.TrimPrefix(message, "flotilla: ") }

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
