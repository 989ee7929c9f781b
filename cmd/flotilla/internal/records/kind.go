package records

import (
	"path"
	"slices"
	"strings"
)

// TempPrefix begins the name of a file that an export is still writing.
const TempPrefix = ".flotilla-export-"

// Kind is what a key is for, in certmagic's layout. Its text is the category in the report.
type Kind string

// Kinds that are transferred, in the order of the report.
const (
	Certificate Kind = "certificates"
	Account     Kind = "ACME accounts"
	Staple      Kind = "OCSP staples"
	Other       Kind = "other records"
)

// Kinds that mean nothing to another storage. They are left out.
const (
	Lock       Kind = "locks"
	Token      Kind = "challenge tokens"
	Test       Kind = "storage tests"
	Mark       Kind = "cleaning marks"
	Unfinished Kind = "unfinished files"
	Outside    Kind = "not below the prefix"
)

func transferred() []Kind { return []Kind{Certificate, Account, Staple, Other} }

func leftOut() []Kind { return []Kind{Lock, Token, Test, Mark, Unfinished, Outside} }

// LeftOut reports whether keys of the kind are left out.
func (k Kind) LeftOut() bool { return !slices.Contains(transferred(), k) }

// KindOf returns the kind of a key and the group that it is transferred with: the files of one
// certificate or of one account belong together. The key must be a clean path.
func KindOf(key string) (k Kind, group string) {
	parts := strings.Split(key, "/")
	dir, base := path.Split(key)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case parts[0] == "locks" && len(parts) > 1, strings.HasSuffix(base, ".lock"):
		return Lock, key
	case len(parts) == 1 && strings.HasPrefix(base, "rw_test_"):
		return Test, key
	case key == "last_clean.json":
		return Mark, key
	case isUnfinished(parts[0], base):
		return Unfinished, key
	case parts[0] == "acme" && len(parts) == 4 && parts[2] == "challenge_tokens":
		return Token, key
	case parts[0] == "acme" && len(parts) == 5 && parts[2] == "users":
		return Account, dir
	case parts[0] == "ocsp" && len(parts) == 2:
		return Staple, key
	case parts[0] == "certificates" && len(parts) == 4 && isCertificateFile(parts[2], base):
		return Certificate, dir
	}
	return Other, key
}

// CertificateExts returns the extensions of the three files of a certificate.
func CertificateExts() []string { return []string{".key", ".crt", ".json"} }

// isCertificateFile reports whether base is one of the three files of a site's certificate.
func isCertificateFile(site, base string) bool {
	ext, ok := strings.CutPrefix(base, site)
	return ok && slices.Contains(CertificateExts(), ext)
}

// isUnfinished reports whether base is the name of a file that is still being written, by an export
// or by certmagic's FileStorage. FileStorage gives such files names of digits, and only below the
// directories listed here.
func isUnfinished(top, base string) bool {
	if strings.HasPrefix(base, TempPrefix) {
		return true
	}
	return (top == "certificates" || top == "acme" || top == "ocsp") && base != top &&
		strings.Trim(base, "0123456789") == ""
}

// PrefixOf returns what stands before certmagic's layout in the key of a certificate: "acme" for
// "acme/certificates/issuer/site/site.crt". Other keys have no prefix.
func PrefixOf(key string) (string, bool) {
	parts := strings.Split(key, "/")
	n := len(parts)
	if n < 5 || parts[n-4] != "certificates" || !isCertificateFile(parts[n-2], parts[n-1]) {
		return "", false
	}
	return strings.Join(parts[:n-4], "/"), true
}
