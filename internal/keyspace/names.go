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

// What the names of roles begin with. Locks, roles of Hold and flotilla's own roles share no names.
const (
	LockPrefix = "lock/"
	RolePrefix = "role/"
	OwnPrefix  = "own/"
)

// Names, or beginnings of names, of the locks that belong to certificates.
const (
	IssueLock   = "issue_cert_" // certmagic's, for one certificate
	SlotLock    = "order_slot_"
	StapleLock  = "ocsp_"
	DamagedLock = "flotilla_aside"
	DevIssuer   = "flotilla-dev" // also the issuer's part of storage keys
)

// Limits of one record.
const (
	MaxValue = 1 << 20 // bytes in a value
	MaxName  = 1024    // bytes in a key, or in the name of a role or lock
)

// cleaningRecord is where certmagic notes when it cleaned the storage.
const cleaningRecord = "last_clean.json"

// CertificateSite returns the directory name of the certificate that a key belongs to: SITE in
// certificates/ISSUER/SITE/….
func CertificateSite(key string) (site string, ok bool) {
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
	site, ok := CertificateSite(key)
	ext := path.Ext(key)
	if !ok || strings.Count(key, "/") != 3 || path.Base(key) != site+ext || ext != ".key" && ext != ".crt" && ext != ".json" {
		return "", ""
	}
	return site, ext
}

// CleanToStore is Clean for a key that a value is to be stored at. It also refuses the empty key,
// and keys that are Misplaced.
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

// Clean returns the one form of a key: without a slash at its ends, without empty parts, dots, or
// two dots. All keys of the storage are below the empty key. The error wraps errs.TooLarge or
// fs.ErrInvalid.
func Clean(key string) (string, error) {
	if len(key) > MaxName {
		return "", fmt.Errorf("%w: the key has %d bytes, the limit is %d", errs.TooLarge, len(key), MaxName)
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

// Misplaced returns an error if no value can be stored at a clean key, because certmagic or
// flotilla needs a directory there, or a value above it. Such a value would stop a certificate, or
// all those of an authority. The error wraps fs.ErrInvalid.
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

// Tree returns the form of a key in the tree, with a zero byte for each slash. So keys sort in the
// order of a walk through directories.
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

// Below returns what all keys below key begin with in the tree.
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
		if site, ok := CertificateSite(key); ok {
			sites = append(sites, site)
		}
	}
	slices.Sort(sites)
	return slices.Compact(sites)
}
