package keyspace

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

// The names of roles begin with one of these, so that the three kinds share no names.
const (
	// LockPrefix begins the names of locks.
	LockPrefix = "lock/"

	// RolePrefix begins the names of the roles of Hold.
	RolePrefix = "role/"

	// OwnPrefix begins the names of flotilla's own roles.
	OwnPrefix = "own/"
)

// These are the names, or the beginnings of the names, of locks that belong to certificates.
const (
	// IssueLock begins the name of certmagic's lock for one certificate.
	IssueLock = "issue_cert_"

	// AccountLock is the name of certmagic's lock for opening an account, or begins it.
	AccountLock = "register_acme_account"

	// SlotLock begins the names of the locks that bound the orders under way.
	SlotLock = "order_slot_"

	// StapleLock begins the names of the locks for OCSP staples.
	StapleLock = "ocsp_"

	// DamagedLock is the name of the lock for moving damaged bundles away.
	DamagedLock = "flotilla_aside"

	// RekeyLock is the name of the lock for replacing all keys of certificates.
	RekeyLock = "flotilla_rekey"

	// DevIssuer begins the names of the locks of the development CA. It is also that issuer's part
	// of storage keys.
	DevIssuer = "flotilla-dev"
)

// These are the limits of one record.
const (
	// MaxValue is the largest number of bytes in a value.
	MaxValue = 1 << 20

	// MaxName is the largest number of bytes in a key, or in the name of a role or lock.
	MaxName = 1024
)

// cleaningRecord is where certmagic notes when it cleaned the storage.
const cleaningRecord = "last_clean.json"

// certificateSite returns the directory name of the certificate that a key belongs to: SITE in
// certificates/ISSUER/SITE/….
func certificateSite(key string) (site string, ok bool) {
	rest, ok := strings.CutPrefix(key, "certificates/")
	if !ok {
		return "", false
	}
	_, rest, _ = strings.Cut(rest, "/")
	site, _, ok = strings.Cut(rest, "/")
	return site, ok
}

// BundlePart returns which part of a certificate's bundle a key is, ".key", ".crt" or ".json", and
// the directory name of the certificate. Both are empty for another key.
func BundlePart(key string) (site, part string) {
	site, ok := certificateSite(key)
	ext := path.Ext(key)
	if !ok || strings.Count(key, "/") != 3 || path.Base(key) != site+ext || ext != ".key" && ext != ".crt" && ext != ".json" {
		return "", ""
	}
	return site, ext
}

// CleanToStore is Clean for the key of a value to store. It also refuses the empty key, and keys
// that Misplaced refuses.
func CleanToStore(key string) (string, error) {
	clean, err := Clean(key)
	if err == nil && clean == "" {
		err = fmt.Errorf("%w: the key is empty", fs.ErrInvalid)
	}
	if err == nil {
		err = Misplaced(clean)
	}
	return clean, err
}

// Clean returns the one form of a key. That form has no slash at either end, and no part that is
// empty, "." or "..". All keys of the storage are below the empty key. The error wraps
// errs.ErrTooLarge or fs.ErrInvalid.
func Clean(key string) (string, error) {
	if len(key) > MaxName {
		return "", fmt.Errorf("%w: the key has %d bytes, the limit is %d", errs.ErrTooLarge, len(key), MaxName)
	}
	if strings.IndexByte(key, 0) >= 0 {
		return "", fmt.Errorf("%w: the key has a zero byte in it", fs.ErrInvalid)
	}
	if isClean(key) {
		return key, nil
	}
	clean := path.Clean(strings.TrimLeft(key, "/"))
	switch {
	case clean == "." || clean == "/":
		return "", nil
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "", fmt.Errorf("%w: the key leads out of the storage", fs.ErrInvalid)
	}
	return clean, nil
}

// isClean reports whether key is in its one form.
func isClean(key string) bool {
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." {
			return key == ""
		}
	}
	return true
}

// Misplaced returns an error if a value at a clean key would be in the way of certmagic or
// flotilla: they need a directory there, or a value above it. Such a value would stop a
// certificate, or all certificates of an authority. The error wraps fs.ErrInvalid.
func Misplaced(key string) error {
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
	return fmt.Errorf("%w: a value here would stand in the way of certificates; below %s there are only keys like %s, so choose another place",
		fs.ErrInvalid, parts[0], form)
}

// Tree returns the form that a key has in the tree of the state, with a zero byte for each slash.
// In that form keys sort in the order of a walk through directories.
func Tree(key string) []byte {
	k := []byte(key)
	for i, c := range k {
		if c == '/' {
			k[i] = 0
		}
	}
	return k
}

// Plain is the inverse of Tree.
func Plain(k []byte) string { return string(bytes.ReplaceAll(k, []byte{0}, []byte{'/'})) }

// Below returns the prefix that all keys below key have in the tree. It is nil for the empty key.
func Below(key string) []byte {
	if key == "" {
		return nil
	}
	return append(Tree(key), 0)
}

// CertificateSites returns the directory names of the certificates that keys belong to, each once,
// in their order.
func CertificateSites(keys []string) []string {
	var sites []string
	for _, key := range keys {
		if site, ok := certificateSite(key); ok {
			sites = append(sites, site)
		}
	}
	slices.Sort(sites)
	return slices.Compact(sites)
}
