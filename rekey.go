package flotilla

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/rotation"
)

// rekeyer replaces the certificates that an evicted node knows.
type rekeyer struct{ certs *certs.Certs }

// Rekey implements rotation.Certificates.
func (r rekeyer) Rekey(ctx context.Context, id string) error { return nil }

// Rekeyed implements rotation.Certificates.
func (r rekeyer) Rekeyed(ctx context.Context, id string) (rotation.Rekeyed, error) {
	return rotation.Rekeyed{}, nil
}
