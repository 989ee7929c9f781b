package rekey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Place is the directory in the storage that the plans are in.
const Place = "flotilla/rekey"

// The states of an item.
const (
	planned   = ""          // nothing has happened yet
	replaced  = "replaced"  // the storage has a certificate with another key
	withdrawn = "withdrawn" // nobody serves the name, and its key was deleted
	revoked   = "revoked"   // done
	deleted   = "deleted"   // done, and the name has no certificate any more
)

// plan is the record of a re-keying.
type plan struct {
	Begun time.Time `json:"begun"`
	Ended time.Time `json:"ended,omitzero"`
	// Root is the hash of the root of the cluster's own authority that must go.
	Root string `json:"root,omitempty"`
	// Notes are what a person must know or do.
	Notes []string `json:"notes,omitempty"`

	Accounts     int `json:"accounts"`
	Certificates int `json:"certificates"`

	// At the end.
	RolledOver int `json:"rolled_over,omitempty"`
	Rekeyed    int `json:"rekeyed,omitempty"`
	Revoked    int `json:"revoked,omitempty"`
	Deleted    int `json:"deleted,omitempty"`
}

// account is the record of an ACME account whose key must go.
type account struct {
	Dir     string          `json:"dir"`  // acme/AUTHORITY/users/ADDRESS
	Stem    string          `json:"stem"` // of its records
	Account json.RawMessage `json:"account,omitempty"`
	Old     string          `json:"old,omitempty"` // PEM of the keys; empty when done
	New     string          `json:"new,omitempty"`
	// Given are the keys that earlier re-keyings were about to give it: somebody may know them too.
	Given []string `json:"given,omitempty"`
	Done  bool     `json:"done,omitempty"`

	place  string // of this record
	missed bool   // the authority did not know it at the last look
}

// authority returns the authority's directory name.
func (a *account) authority() string { return path.Base(path.Dir(path.Dir(a.Dir))) }

// certificate is the record of a certificate whose key must go.
type certificate struct {
	Issuer string `json:"issuer"` // certificates/ISSUER/SITE/… in the storage
	Site   string `json:"site"`
	Name   string `json:"name"` // the subject that was ordered
	SPKI   string `json:"spki"` // hash of the public key
	State  string `json:"state,omitempty"`

	// What the revocation needs. Empty when done.
	Leaf []byte          `json:"leaf,omitempty"`
	Key  string          `json:"key,omitempty"`  // PEM; empty: it was not there
	CA   string          `json:"ca,omitempty"`   // URL of the ACME directory, if that is known
	Data json.RawMessage `json:"data,omitempty"` // of an issuer without ACME

	place string
}

// dir returns the directory of the certificate.
func (c *certificate) dir() string { return "certificates/" + c.Issuer + "/" + c.Site }

// stem returns the beginning of the keys of the certificate's records.
func (c *certificate) stem() string { return c.dir() + "/" + c.Site }

// isDone reports whether nothing is left to do.
func (c *certificate) isDone() bool { return c.State == revoked || c.State == deleted }

// isOwn reports whether the cluster's own authority has issued a certificate.
func isOwn(c *certificate) bool { return c.Issuer == keyspace.DevIssuer }

// Progress is how far a re-keying is.
type Progress struct {
	// Begun says that there is a plan, and Done that nothing is left to do.
	Begun, Done bool
	// Accounts and Certificates are how many are in the plan.
	Accounts, Certificates int
	// RolledOver is how many accounts have another key, or are closed.
	RolledOver int
	// Rekeyed is how many names have a certificate with another key, Deleted how many certificates
	// of names that nobody serves are gone.
	Rekeyed, Deleted int
	// Revoked is how many old certificates nobody can use any more: they are revoked or have
	// expired, or their authority was replaced.
	Revoked int
	// Trouble has a line for each thing that fails now or waits: why, and when it is tried again.
	Trouble []string
	// Notes have a line for each thing that a person must know or do.
	Notes []string
}

// checkID returns an error unless id can be part of a key.
func checkID(id string) error {
	bad := func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_'
	}
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, bad) {
		return fmt.Errorf("%w: the ID %q of a re-keying; use 1 to 64 letters, digits and hyphens", fs.ErrInvalid, id)
	}
	return nil
}

func planPlace(id string) string    { return Place + "/" + id + "/plan.json" }
func troublePlace(id string) string { return Place + "/" + id + "/trouble.json" }

// records reads and writes the records of plans.
type records struct {
	storage certmagic.Storage
	log     *slog.Logger
}

// load decodes a JSON record.
func (r records) load(ctx context.Context, key string, into any) error {
	raw, err := r.storage.Load(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("the record %s cannot be read; delete it if it stays so: %w", key, err)
	}
	return nil
}

// save encodes a JSON record.
func (r records) save(ctx context.Context, key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return r.storage.Store(ctx, key, raw)
}

// list returns what is in a directory, nothing if it does not exist.
func (r records) list(ctx context.Context, dir string, recursive bool) ([]string, error) {
	keys, err := r.storage.List(ctx, dir, recursive)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

// loadItems returns the accounts and certificates of a plan.
func (r records) loadItems(ctx context.Context, id string) ([]*account, []*certificate, error) {
	keys, err := r.list(ctx, Place+"/"+id+"/accounts", false)
	if err != nil {
		return nil, nil, err
	}
	var accounts []*account
	for _, key := range keys {
		a := &account{place: key}
		if err := r.load(ctx, key, a); err != nil {
			return nil, nil, err
		}
		accounts = append(accounts, a)
	}
	if keys, err = r.list(ctx, Place+"/"+id+"/certificates", false); err != nil {
		return nil, nil, err
	}
	var certificates []*certificate
	for _, key := range keys {
		c := &certificate{place: key}
		if err := r.load(ctx, key, c); err != nil {
			return nil, nil, err
		}
		certificates = append(certificates, c)
	}
	return accounts, certificates, nil
}

// count fills in how many items are done.
func (p *plan) count(accounts []*account, certificates []*certificate) {
	p.RolledOver, p.Rekeyed, p.Revoked, p.Deleted = 0, 0, 0, 0
	for _, a := range accounts {
		if a.Done {
			p.RolledOver++
		}
	}
	for _, c := range certificates {
		switch c.State {
		case replaced:
			p.Rekeyed++
		case revoked:
			p.Rekeyed++
			p.Revoked++
		case deleted:
			p.Deleted++
			p.Revoked++
		}
	}
}

// unfinished returns the IDs of the plans that have not ended, the oldest first.
func (r records) unfinished(ctx context.Context) ([]string, error) {
	dirs, err := r.list(ctx, Place, false)
	if err != nil {
		return nil, err
	}
	var ids []string
	begun := make(map[string]time.Time)
	for _, dir := range dirs {
		id := path.Base(dir)
		var p plan
		switch err := r.load(ctx, planPlace(id), &p); {
		case errors.Is(err, fs.ErrNotExist): // it was interrupted, and nobody has asked for it since
		case err != nil:
			return nil, err
		case p.Ended.IsZero():
			ids, begun[id] = append(ids, id), p.Begun
		default:
			r.tidy(ctx, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return begun[a].Compare(begun[b]) })
	return ids, nil
}

// tidy deletes what a plan that has ended needs no more: all but the plan itself.
func (r records) tidy(ctx context.Context, id string) {
	keys, err := r.list(ctx, Place+"/"+id, false)
	for _, key := range keys {
		if key != planPlace(id) {
			err = errors.Join(err, r.storage.Delete(ctx, key))
		}
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("the list of a re-keying that has ended cannot be deleted; will try again", "id", id, "error", err)
	}
}
