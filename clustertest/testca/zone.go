package testca

import (
	"context"
	"slices"
	"sync"

	"github.com/mholt/acmez/v3/acme"
)

// Zone is a DNS zone in memory. It is a solver of DNS-01 challenges, for DNS01Solver of certmagic's
// ACME issuer, and answers the authority. All nodes of a cluster share one, as they would share a
// provider. The zero Zone is ready. Its methods are safe for concurrent use.
type Zone struct {
	mu      sync.Mutex
	records map[string][]string
}

// Present adds the record that a challenge wants.
func (z *Zone) Present(_ context.Context, c acme.Challenge) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.records == nil {
		z.records = make(map[string][]string)
	}
	name := c.DNS01TXTRecordName()
	z.records[name] = append(z.records[name], c.DNS01KeyAuthorization())
	return nil
}

// CleanUp removes the record of a challenge.
func (z *Zone) CleanUp(_ context.Context, c acme.Challenge) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := c.DNS01TXTRecordName()
	if i := slices.Index(z.records[name], c.DNS01KeyAuthorization()); i >= 0 {
		z.records[name] = slices.Delete(z.records[name], i, i+1)
	}
	return nil
}

// TXT returns the records of a name, for Config.TXT.
func (z *Zone) TXT(_ context.Context, name string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.records[name]), nil
}
