package keyspace

import (
	"fmt"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Budget is a share of the state with a limit of its own, so that what programs store can stop no
// certificate, no lock and no role. The name of a record or role decides what it counts against:
// certmagic stores through the same Storage as a program does.
type Budget int

const (
	programRecords     Budget = iota // all other records
	CertificateRecords               // records of certmagic and flotilla
	programClaims                    // roles of Hold, and locks that certmagic does not take
	ownClaims                        // certmagic's locks, and flotilla's own roles

	Budgets // how many there are
)

const (
	claimShare = 16        // the limit of claims is this part of the limit of records
	minClaims  = 256 << 10 // bytes; no limit but that of programs' records is smaller

	ClaimCost = 64 // bytes that a claim counts besides its names
)

// String names the budget for people.
func (b Budget) String() string {
	switch b {
	case programRecords:
		return "records of programs"
	case CertificateRecords:
		return "certificates"
	case programClaims:
		return "roles and locks of programs"
	}
	return "locks of certificates"
}

// Limit returns how many bytes the budget has with that Config.MaxState.
func (b Budget) Limit(maxState int64) int64 {
	switch b {
	case programRecords:
		return maxState
	case CertificateRecords:
		return max(maxState, minClaims)
	}
	return max(maxState/claimShare, minClaims)
}

// Refuse returns the error of a write that has no room. It wraps errs.TooLarge.
func (b Budget) Refuse(used, maxState int64) error {
	return fmt.Errorf("%w: the %s have %d bytes, the limit is %d; delete something or raise Config.MaxState",
		errs.TooLarge, b, used, b.Limit(maxState))
}

// OfRecord returns the budget that a record at key counts against. The key may be in the tree's
// form.
func OfRecord(key string) Budget {
	top := key
	if i := strings.IndexAny(key, "/\x00"); i >= 0 {
		top = key[:i]
	}
	switch top {
	case "certificates", "acme", "ocsp", "flotilla", cleaningRecord:
		return CertificateRecords
	}
	return programRecords
}

// OfClaim returns the budget that a claim to that role counts against.
func OfClaim(role string) Budget {
	lock, isLock := strings.CutPrefix(role, LockPrefix)
	if strings.HasPrefix(role, OwnPrefix) || isLock && IsCertificateLock(lock) {
		return ownClaims
	}
	return programClaims
}

// IsCertificateLock reports whether certmagic takes a lock of that name, or flotilla takes it for
// certificates.
func IsCertificateLock(name string) bool {
	for _, prefix := range []string{IssueLock, "register_acme_account", "ari_", SlotLock, StapleLock, DamagedLock, DevIssuer} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "storage_clean"
}
