package rekey

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// Whatever is in the records of a plan, reading them returns an error or something that the
// progress can be counted of.
func FuzzRecords(f *testing.F) {
	for _, x := range []any{
		plan{Accounts: 1}, account{Dir: "acme/ca/users/me", Old: "x"}, certificate{State: replaced, Leaf: []byte{1}}, []string{"a"},
	} {
		raw, err := json.Marshal(x)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, raw, raw)
	}
	f.Fuzz(func(t *testing.T, p, a, c []byte) {
		storage := &certmagic.FileStorage{Path: filepath.Join(t.TempDir(), "s")}
		r := New(Config{Shared: storage, Log: testlog.None()})
		for key, value := range map[string][]byte{
			planPlace("1"): p, troublePlace("1"): p, Place + "/1/accounts/x": a, Place + "/1/certificates/x": c,
		} {
			if err := storage.Store(t.Context(), key, value); err != nil {
				t.Fatal(err)
			}
		}
		out, err := r.Progress(t.Context(), "1")
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a record that cannot be read counts as missing: %v", err)
			}
			return
		}
		if out.Revoked > out.Rekeyed+out.Deleted && !out.Done {
			t.Errorf("progress: %+v", out)
		}
	})
}

// Whatever certificates, keys and metadata are stored, they are described or reported.
func FuzzDescribe(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN EC PRIVATE KEY-----\nMA==\n-----END EC PRIVATE KEY-----\n"), []byte(`{"sans":["a.example"]}`))
	f.Add([]byte{}, []byte{}, []byte(`{"issuer_data":{"ca":"https://ca.example/directory"}}`))
	f.Fuzz(func(t *testing.T, crt, key, meta []byte) {
		storage := &certmagic.FileStorage{Path: filepath.Join(t.TempDir(), "s")}
		r := New(Config{Shared: storage, Log: testlog.None()})
		const stem = "certificates/ca/a/a"
		for ext, value := range map[string][]byte{".crt": crt, ".key": key, ".json": meta} {
			if err := storage.Store(t.Context(), stem+ext, value); err != nil {
				t.Fatal(err)
			}
		}
		c, err := r.describe(t.Context(), stem, []string{"certificates", "ca", "a", "a.crt"})
		if (c == nil) != (err != nil) || err != nil && !errors.Is(err, errUnreadable) {
			t.Errorf("%+v, %v", c, err)
		}
	})
}
