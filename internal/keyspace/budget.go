package keyspace

import (
	"fmt"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Budget is a share of the state with a limit of its own. Budgets keep what programs store from
// stopping certificates, locks and roles. The name of a record or role decides which budget it
// counts against, since certmagic stores through the same Storage as a program does.
type Budget int

const (
	programRecords Budget = iota // all other records

	// CertificateRecords is the budget of the records of certmagic and flotilla.
	CertificateRecords

	programClaims // roles of Hold, and locks that certmagic does not take
	ownClaims     // certmagic's locks, and flotilla's own roles

	// ProgramItems is the budget of the entries of package kv.
	ProgramItems

	// Budgets is the number of budgets.
	Budgets
)

const (
	claimShare = 16        // the limit of claims is the limit of records divided by this
	minClaims  = 256 << 10 // bytes; only the limit of programs' records may be smaller

	// ClaimCost is the number of bytes that a claim counts besides its names.
	ClaimCost = 64

	// ItemCost is the number of bytes that an entry of package kv counts besides its names and value.
	ItemCost = 64
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
	case ProgramItems:
		return "entries of programs' buckets"
	}
	return "locks of certificates"
}

// Field returns the field of Config that sets the budget's limit.
func (b Budget) Field() string {
	if b == ProgramItems {
		return "MaxRecords"
	}
	return "MaxState"
}

// Limit returns how many bytes the budget has if the field of Config that sets it is limit bytes.
func (b Budget) Limit(limit int64) int64 {
	switch b {
	case programRecords, ProgramItems:
		return limit
	case CertificateRecords:
		return max(limit, minClaims)
	}
	return max(limit/claimShare, minClaims)
}

// Refuse returns the error of a write for which the budget has no room. used is how many bytes the
// budget has in use, and limit is as for Limit. The error wraps errs.ErrTooLarge.
func (b Budget) Refuse(used, limit int64) error {
	return fmt.Errorf("%w: the %s have %d bytes, the limit is %d; delete something or raise Config.%s",
		errs.ErrTooLarge, b, used, b.Limit(limit), b.Field())
}

// OfRecord returns the budget that a record at key counts against. The key may be in its clean form
// or in the tree's form.
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

// OfClaim returns the budget that a claim to a role counts against. role is the name in the tree,
// with its prefix.
func OfClaim(role string) Budget {
	lock, isLock := strings.CutPrefix(role, LockPrefix)
	if strings.HasPrefix(role, OwnPrefix) || isLock && isCertificateLock(lock) {
		return ownClaims
	}
	return programClaims
}

// isCertificateLock reports whether certmagic takes a lock of that name, or flotilla takes it for
// certificates.
func isCertificateLock(name string) bool {
	for _, prefix := range []string{IssueLock, AccountLock, "ari_", SlotLock, StapleLock, DamagedLock, RekeyLock, DevIssuer} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "storage_clean"
}
