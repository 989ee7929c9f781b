package keyspace

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/errs"
)

func TestCleanKey(t *testing.T) {
	for key, want := range map[string]string{
		"": "", "a": "a", "a/b": "a/b", "a.b/..c/d..": "a.b/..c/d..", ".a": ".a",
		"/": "", "/a": "a", "a/": "a", "a//b": "a/b", "a/./b": "a/b", "a/../b": "b", ".": "", "a/..": "", "//a//": "a",
	} {
		if got, err := Clean(key); got != want || err != nil {
			t.Errorf("%q is cleaned to %q, %v; want %q", key, got, err, want)
		}
	}
	for key, want := range map[string]string{
		"a\x00b": "zero byte", strings.Repeat("x", MaxName+1): "the limit is 1024",
		"..": "leads out", "../a": "leads out", "/../a": "leads out", "a/../../certificates": "leads out", "a/../..": "leads out", "./../a/": "leads out",
	} {
		if got, err := Clean(key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is cleaned to %q, %v; want an error with %q", key, got, err, want)
		}
	}
}

// No value can be stored where certificates need a directory, and the other way around.
func TestCleanToStore(t *testing.T) {
	for _, key := range []string{
		"certificates", "./certificates", "certificates/ca", "certificates/ca/a.test", "certificates/ca/a.test/a.test.key/x",
		"acme", "acme/ca", "acme/ca/users", "acme/ca/users/me@a.test", "acme/ca/challenge_tokens/a.json/x",
		"ocsp", "ocsp/a/b", "locks", "flotilla", "last_clean.json/x",
	} {
		if _, err := CleanToStore(key); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "in the way") {
			t.Errorf("%q: %v", key, err)
		}
	}
	for key, want := range map[string]error{"": fs.ErrInvalid, "a/..": fs.ErrInvalid, "a\x00b": fs.ErrInvalid, strings.Repeat("k", MaxName+1): errs.ErrTooLarge} {
		if _, err := CleanToStore(key); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", key, err, want)
		}
	}
	for _, key := range []string{
		"Certificates", "certificates.txt", "x/certificates", "a\xffb", "certificates/ca/a.test/a.test.key", "acme/ca/users/me@a.test/me.json",
		"acme/ca/challenge_tokens/a.json", "acme/ca/other", "ocsp/a", "locks/a", "last_clean.json",
	} {
		if clean, err := CleanToStore(key); clean != key || err != nil {
			t.Errorf("%q: %q, %v", key, clean, err)
		}
	}
}

// In the form of the tree, keys sort as a walk through directories does.
func TestTree(t *testing.T) {
	order := []string{"a", "a/b", "a/b/c", "a/b-c", "a-b", "ab"}
	for i, key := range order {
		if got := Plain(Tree(key)); got != key {
			t.Errorf("%q comes back as %q", key, got)
		}
		if i > 0 && string(Tree(order[i-1])) >= string(Tree(key)) {
			t.Errorf("%q is not before %q", order[i-1], key)
		}
	}
}

// What counts against which budget goes by the name alone.
func TestBudgets(t *testing.T) {
	for key, want := range map[string]Budget{
		"a": programRecords, "certificates.txt": programRecords, "x/certificates/y": programRecords,
		"certificates/ca/a/a.key": CertificateRecords, "certificates\x00ca": CertificateRecords, "acme/ca/x": CertificateRecords,
		"ocsp/a": CertificateRecords, "flotilla/a": CertificateRecords, "last_clean.json": CertificateRecords,
	} {
		if got := OfRecord(key); got != want {
			t.Errorf("%q counts against the %v, want the %v", key, got, want)
		}
	}
	for role, want := range map[string]Budget{
		RolePrefix + "issue_cert_a": programClaims, LockPrefix + "a": programClaims, OwnPrefix + "a": ownClaims,
		LockPrefix + "issue_cert_a": ownClaims, LockPrefix + "storage_clean": ownClaims, LockPrefix + "storage_cleaner": programClaims,
	} {
		if got := OfClaim(role); got != want {
			t.Errorf("%q counts against the %v, want the %v", role, got, want)
		}
	}
}
