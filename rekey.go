package flotilla

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/rotation"
)

// rekeyer replaces the certificates that an evicted node knows.
type rekeyer struct{ *certs.Certs }

// Rekeyed implements rotation.Certificates.
func (r rekeyer) Rekeyed(ctx context.Context, id string) (rotation.Rekeyed, error) {
	p, err := r.RekeyProgress(ctx, id)
	return rotation.Rekeyed{
		Accounts: p.RolledOver, AllAccounts: p.Accounts, Certificates: p.Rekeyed + p.Deleted, AllCertificates: p.Certificates,
		Revoked: p.Revoked, Trouble: p.Trouble, Notes: p.Notes,
	}, err
}
