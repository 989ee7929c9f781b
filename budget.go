package flotilla

import (
	"fmt"
	"io/fs"
	"strings"
)

// budget is a share of the state with a limit of its own, so that what programs store can stop no certificate, no lock and no role. What
// counts against which is told by its place, for certmagic stores through the same Storage as a program does.
type budget int

const (
	programRecords budget = iota
	certificateRecords
	programClaims // roles of Hold, and locks that certmagic does not know
	ownClaims     // certmagic's locks, and flotilla's own roles
	budgets
)

const (
	claimShare = 16        // the limit of claims is such a part of that of records
	minClaims  = 256 << 10 // and not less than this
	claimCost  = 64        // what a claim counts besides its names
)

func (b budget) String() string {
	switch b {
	case programRecords:
		return "records of programs"
	case certificateRecords:
		return "certificates"
	case programClaims:
		return "roles and locks of programs"
	}
	return "locks of certificates"
}

// limit returns how many bytes the budget has, with that Config.MaxState.
func (b budget) limit(maxState int64) int64 {
	switch b {
	case programRecords:
		return maxState
	case certificateRecords:
		return max(maxState, minClaims)
	}
	return max(maxState/claimShare, minClaims)
}

// refuse returns the error of a write that has no room.
func (b budget) refuse(used, maxState int64) error {
	return fmt.Errorf("%w: the %s have %d bytes, the limit is %d; delete something or raise Config.MaxState", ErrTooLarge, b, used, b.limit(maxState))
}

// recordBudget returns what a record at key counts against. The key may be in the tree's form.
func recordBudget(key string) budget {
	top := key
	if i := strings.IndexAny(key, "/\x00"); i >= 0 {
		top = key[:i]
	}
	switch top {
	case "certificates", "acme", "ocsp", "flotilla", cleaningRecord:
		return certificateRecords
	}
	return programRecords
}

// claimBudget returns what a claim to that role counts against.
func claimBudget(role string) budget {
	lock, isLock := strings.CutPrefix(role, lockPrefix)
	if strings.HasPrefix(role, ownPrefix) || isLock && isCertmagicLock(lock) {
		return ownClaims
	}
	return programClaims
}

// isCertmagicLock reports whether certmagic takes a lock of that name, or flotilla for what belongs to certificates.
func isCertmagicLock(name string) bool {
	for _, prefix := range []string{issueLock, "register_acme_account", "ari_", slotLock, stapleLockPrefix, asideLock, devIssuerKey} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "storage_clean"
}

// cleaningRecord is where certmagic notes when it cleaned the storage.
const cleaningRecord = "last_clean.json"

// misplaced returns why no value can be stored at a clean key: it would stand in the way of what certmagic or flotilla keeps. A value where they
// need a directory, or a directory where they need a value, would stop all certificates of an authority, or one.
func misplaced(key string) error {
	parts := strings.Split(key, "/")
	var ok bool
	var form string
	switch parts[0] {
	case "certificates":
		ok, form = len(parts) == 4, "certificates/AUTHORITY/NAME/FILE"
	case "acme":
		form = "acme/AUTHORITY/challenge_tokens/FILE or acme/AUTHORITY/users/ADDRESS/FILE"
		switch {
		case len(parts) < 3:
		case parts[2] == "challenge_tokens":
			ok = len(parts) == 4
		case parts[2] == "users":
			ok = len(parts) == 5
		default:
			ok = true
		}
	case "ocsp":
		ok, form = len(parts) == 2, "ocsp/FILE"
	case "locks", "flotilla":
		ok, form = len(parts) > 1, parts[0]+"/FILE"
	case cleaningRecord:
		ok, form = len(parts) == 1, cleaningRecord
	default:
		return nil
	}
	if ok {
		return nil
	}
	return fmt.Errorf("%w: a value here would stand in the way of certificates; below %s there are only keys like %s, so choose another place", fs.ErrInvalid, parts[0], form)
}
