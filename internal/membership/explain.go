package membership

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Explain says in plain words why a peer cannot be reached. The words stay the same as long as the
// cause does.
func Explain(err error) string {
	var (
		secret  *wire.WrongSecretError
		node    *wire.WrongNodeError
		refused *wire.RefusedError
		call    *wire.RPCError
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
		return fmt.Sprintf("another node, %s, answers there", plaintext.ShortID(node.Got))
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
