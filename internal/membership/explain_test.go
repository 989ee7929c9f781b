package membership

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// What a person reads about a peer that cannot be reached says what to look at.
func TestExplain(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, test := range []struct {
		err  error
		want string
	}{
		{refused, "connection refused"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Name: "x", IsNotFound: true}}, "not known to DNS: x"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Name: "x", IsTimeout: true}}, "DNS does not answer"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Name: "x", Err: "server misbehaving"}}, "cannot be resolved: server misbehaving"},
		{&net.OpError{Op: "dial", Err: &net.AddrError{Err: "missing port in address", Addr: "x"}}, "missing port"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "no route"},
		{context.DeadlineExceeded, "no answer in time"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "no answer in time"},
		{&wire.WrongSecretError{Addr: "x"}, "another cluster secret"},
		{&wire.WrongNodeError{Got: "0123456789"}, "another node, 01234567"},
		{&wire.RefusedError{Reason: "not a member"}, "refuses the connection: not a member"},
		{&wire.RPCError{Message: "no"}, "answers with an error: no"},
		{io.EOF, "closes the connection"},
		{&errs.ConfigError{Field: "Peers", Reason: "x is no address of a peer"}, "no address of a peer"},
		{fs.ErrInvalid, "invalid argument"},
	} {
		if got := Explain(errors.Join(test.err)); !strings.Contains(got, test.want) {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}
