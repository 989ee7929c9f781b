package main

import (
	"path"
	"strings"
)

// kind is what a key is for, in certmagic's layout. Its text is the category of the report.
type kind string

// Kinds that are brought over, in the order of the report.
const (
	kindCertificate kind = "certificates"
	kindAccount     kind = "ACME accounts"
	kindStaple      kind = "OCSP staples"
	kindOther       kind = "other records"
)

// Kinds that mean nothing anywhere else, and are left out.
const (
	kindLock       kind = "locks"
	kindToken      kind = "challenge tokens"
	kindTest       kind = "storage tests"
	kindMark       kind = "cleaning marks"
	kindUnfinished kind = "unfinished files"
	kindOutside    kind = "not below the prefix"
)

func takenKinds() []kind { return []kind{kindCertificate, kindAccount, kindStaple, kindOther} }

func leftKinds() []kind {
	return []kind{kindLock, kindToken, kindTest, kindMark, kindUnfinished, kindOutside}
}

// leftOut reports whether keys of a kind are left out.
func (k kind) leftOut() bool {
	for _, taken := range takenKinds() {
		if k == taken {
			return false
		}
	}
	return true
}

// kindOf says what a key is for, and names the group that it is brought over with: the files of one certificate, or of one
// account, belong together. The key's form is that of a clean path.
func kindOf(key string) (k kind, group string) {
	parts := strings.Split(key, "/")
	dir, base := path.Split(key)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case parts[0] == "locks" && len(parts) > 1, strings.HasSuffix(base, ".lock"):
		return kindLock, key
	case len(parts) == 1 && strings.HasPrefix(base, "rw_test_"):
		return kindTest, key
	case key == "last_clean.json":
		return kindMark, key
	case isUnfinished(parts[0], base):
		return kindUnfinished, key
	case parts[0] == "acme" && len(parts) == 4 && parts[2] == "challenge_tokens":
		return kindToken, key
	case parts[0] == "acme" && len(parts) == 5 && parts[2] == "users":
		return kindAccount, dir
	case parts[0] == "ocsp" && len(parts) == 2:
		return kindStaple, key
	case parts[0] == "certificates" && len(parts) == 4 && isCertificateFile(parts[2], base):
		return kindCertificate, dir
	}
	return kindOther, key
}

// isCertificateFile reports whether base is one of the three files of a site's certificate.
func isCertificateFile(site, base string) bool {
	ext, ok := strings.CutPrefix(base, site)
	return ok && (ext == ".key" || ext == ".crt" || ext == ".json")
}

// isUnfinished reports whether base is a name that certmagic's FileStorage, or export, gives to a file while it writes it. The first
// writes in its own directories only, and takes digits.
func isUnfinished(top, base string) bool {
	if strings.HasPrefix(base, tempPrefix) {
		return true
	}
	return (top == "certificates" || top == "acme" || top == "ocsp") && base != top && strings.Trim(base, "0123456789") == ""
}

// prefixBefore returns what stands before certmagic's layout in a key, if the key looks like that: "acme" for
// "acme/certificates/issuer/site/site.crt".
func prefixBefore(key string) (string, bool) {
	parts := strings.Split(key, "/")
	n := len(parts)
	if n < 5 || parts[n-4] != "certificates" || !isCertificateFile(parts[n-2], parts[n-1]) {
		return "", false
	}
	return strings.Join(parts[:n-4], "/"), true
}
