package tickets

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// demandsCache remembers the digest of what a configuration demands of clients, since a pool may be
// large.
type demandsCache struct{ last atomic.Pointer[demands] }

// demands is what a configuration demands of clients, with its digest.
type demands struct {
	auth    tls.ClientAuthType
	cas     *x509.CertPool
	checked bool // by VerifyPeerCertificate, which is not called when a session is resumed
	sum     [sha256.Size]byte
}

// binding returns what a ticket for a server name under cfg contains.
func (c *demandsCache) binding(cfg *tls.Config, name string) []byte {
	d := c.last.Load()
	checked := cfg.VerifyPeerCertificate != nil
	if d == nil || d.auth != cfg.ClientAuth || d.cas != cfg.ClientCAs || d.checked != checked {
		d = newDemands(cfg.ClientAuth, cfg.ClientCAs, checked)
		c.last.Store(d)
	}
	sum := sha256.Sum256(append(d.sum[:], strings.ToLower(name)...))
	return sum[:]
}

func newDemands(auth tls.ClientAuthType, cas *x509.CertPool, checked bool) *demands {
	d := &demands{auth: auth, cas: cas, checked: checked}
	h := sha256.New()
	fmt.Fprintf(h, "flotilla ticket 1\n%d %v\n", d.auth, d.checked)
	if d.cas != nil {
		//lint:ignore SA1019 it leaves out the system roots, which verify no client certificates
		subjects := d.cas.Subjects()
		slices.SortFunc(subjects, bytes.Compare)
		for _, s := range subjects {
			fmt.Fprintf(h, "%x\n", s)
		}
	}
	h.Sum(d.sum[:0])
	return d
}
