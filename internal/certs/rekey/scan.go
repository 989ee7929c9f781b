package rekey

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

const (
	storesAtOnce = 16  // records of a plan that are written at once
	maxNotes     = 100 // that are kept
)

// open returns once there is a plan for id. One that was interrupted before it was complete is made
// anew: what it has listed already stays in it, since somebody may know these keys too.
func (r *Rekeyer) open(ctx context.Context, id string) error {
	err := r.load(ctx, planPlace(id), new(plan))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p := &plan{Begun: r.Clocks.Now().UTC()}
	accounts, err := r.scanAccounts(ctx, id, p)
	if err != nil {
		return fmt.Errorf("finding the accounts: %w", err)
	}
	certificates, err := r.scanCertificates(ctx, id, p)
	if err != nil {
		return fmt.Errorf("finding the certificates: %w", err)
	}
	if p.Root, err = r.rootHash(ctx); err != nil {
		return fmt.Errorf("finding the cluster's own authority: %w", err)
	}
	if p.Root != "" {
		p.note("the cluster's own authority gets another root: give it to every client that trusts the old one, and remove the old one there")
	}
	if r.PerNode && p.Root != "" {
		p.note("each node has certificates of its own, and gets one of the new root when it renews them: until then clients need both roots")
	}
	if r.PerNode {
		p.note("each node keeps its certificates to itself, so nobody else had their keys; " +
			"if the removed machine had a certificate, revoke it at the authority, which knows its serial number")
	}
	items := make(map[string]any)
	for _, a := range accounts {
		items[a.place] = a
	}
	for _, c := range certificates {
		items[c.place] = c
	}
	// those of an interrupted attempt are in it too
	before, err := r.list(ctx, Place+"/"+id, true)
	if err != nil {
		return err
	}
	if err := r.saveAll(ctx, items); err != nil {
		return r.takeBack(ctx, err, items, before)
	}
	all, listed, err := r.loadItems(ctx, id)
	if err != nil {
		return err
	}
	p.Accounts, p.Certificates = len(all), len(listed)
	if err := r.save(ctx, planPlace(id), p); err != nil {
		return r.takeBack(ctx, err, items, before)
	}
	r.Log.Info("all keys of certificates and accounts are being replaced, and the certificates revoked",
		"id", id, "accounts", p.Accounts, "certificates", p.Certificates)
	for _, n := range p.Notes {
		r.Log.Warn("re-keying: "+n, "id", id)
	}
	return nil
}

// takeBack deletes what was written of a plan if err says that the storage has no room for it. What
// was there before stays: the keys in it may be nowhere else.
func (r *Rekeyer) takeBack(ctx context.Context, err error, items map[string]any, before []string) error {
	if !errors.Is(err, errs.ErrTooLarge) {
		return err
	}
	for place := range items {
		if !slices.Contains(before, place) {
			err = errors.Join(err, r.Shared.Delete(ctx, place))
		}
	}
	return err
}

// note adds what a person must know, once.
func (p *plan) note(text string) {
	switch {
	case slices.Contains(p.Notes, text) || len(p.Notes) > maxNotes:
	case len(p.Notes) == maxNotes:
		p.Notes = append(p.Notes, "and more like these")
	default:
		p.Notes = append(p.Notes, text)
	}
}

// saveAll saves records, several at once: they share entries of the log.
func (r *Rekeyer) saveAll(ctx context.Context, records map[string]any) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	slots := make(chan struct{}, storesAtOnce)
	for key, value := range records {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := r.save(ctx, key, value); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// rootHash returns the hash of the root of the cluster's own authority, empty if there is none.
func (r *Rekeyer) rootHash(ctx context.Context) (string, error) {
	if _, err := r.Shared.Stat(ctx, devca.RootRecord); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return "", err
	}
	root, err := (&devca.Issuer{Storage: r.Shared}).Root(ctx)
	if err != nil {
		return "", err
	}
	return hashOf(root.Raw), nil
}

// scanAccounts lists the accounts of all authorities, and those among the damaged records.
func (r *Rekeyer) scanAccounts(ctx context.Context, id string, p *plan) ([]*account, error) {
	keys, err := r.list(ctx, "acme", true)
	if err != nil {
		return nil, err
	}
	given, err := r.given(ctx)
	if err != nil {
		return nil, err
	}
	var out []*account
	for _, key := range keys {
		stem, ok := strings.CutSuffix(key, ".key")
		if parts := strings.Split(key, "/"); !ok || len(parts) != 5 || parts[2] != "users" {
			continue
		}
		a := &account{Dir: path.Dir(key), Stem: stem}
		private, err := r.Shared.Load(ctx, key)
		if err != nil {
			return nil, err
		}
		a.Account, err = r.Shared.Load(ctx, stem+".json")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		_, bad := decodeKey(private)
		if err != nil || bad != nil || !json.Valid(a.Account) {
			p.note("the account in " + a.Dir + " cannot be read, so its key was not replaced")
			continue
		}
		if r.configured(private) {
			p.note("the key of the account in " + a.Dir + " is set in the program (AccountKeyPEM): replace it there, on all nodes")
			continue
		}
		a.Old, a.Given = string(private), given[a.Dir]
		a.place = Place + "/" + id + "/accounts/" + hashOf([]byte(a.Dir + a.Old))[:32]
		out = append(out, a)
	}
	copies, err := r.list(ctx, r.Damaged, true)
	if err != nil {
		return nil, err
	}
	for _, key := range copies {
		stem, ok := strings.CutSuffix(key, ".key")
		if !ok || !strings.Contains(key, "/acme/") {
			continue
		}
		private, err := r.Shared.Load(ctx, key)
		if err != nil {
			return nil, err
		}
		a := &account{Dir: path.Dir(key), Stem: stem, Account: json.RawMessage("{}"), Old: string(private)}
		a.place = Place + "/" + id + "/accounts/" + hashOf([]byte(a.Dir + a.Old))[:32]
		inUse := func(x *account) bool { return x.Old == a.Old } // a person has repaired it
		if _, bad := decodeKey(private); bad == nil && !slices.ContainsFunc(out, inUse) {
			out = append(out, a)
		}
	}
	return out, nil
}

// given returns the keys that plans which have not ended are about to give to accounts, by the
// directory of the account.
func (r *Rekeyer) given(ctx context.Context) (map[string][]string, error) {
	ids, err := r.unfinished(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]string)
	for _, id := range ids {
		accounts, _, err := r.loadItems(ctx, id)
		if err != nil {
			return nil, err
		}
		for _, a := range accounts {
			if a.New != "" {
				out[a.Dir] = append(out[a.Dir], a.New)
			}
		}
	}
	return out, nil
}

// configured reports whether the program has set this key of an account.
func (r *Rekeyer) configured(private []byte) bool {
	return slices.ContainsFunc(r.Certmagic.Issuers, func(i certmagic.Issuer) bool {
		acme, ok := i.(*certmagic.ACMEIssuer)
		return ok && acme.AccountKeyPEM != "" && bytes.Equal(bytes.TrimSpace([]byte(acme.AccountKeyPEM)), bytes.TrimSpace(private))
	})
}

// scanCertificates lists the certificates of all names, and those among the damaged records.
func (r *Rekeyer) scanCertificates(ctx context.Context, id string, p *plan) ([]*certificate, error) {
	var out []*certificate
	for _, top := range []string{"", r.Damaged} {
		keys, err := r.list(ctx, cmp.Or(top, "certificates"), true)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			rest := key
			if i := strings.LastIndex(key, "/certificates/"); i >= 0 {
				rest = key[i+1:]
			}
			if _, part := keyspace.BundlePart(rest); part != ".crt" {
				continue
			}
			c, err := r.describe(ctx, strings.TrimSuffix(key, ".crt"), strings.Split(rest, "/"))
			if errors.Is(err, errUnreadable) {
				if top == "" {
					p.note(fmt.Sprintf("the certificate %s cannot be read, so it was not revoked", key))
				}
				continue
			}
			if err != nil {
				return nil, err
			}
			if top != "" {
				c.State = replaced // nobody serves it
			}
			c.place = Place + "/" + id + "/certificates/" + hashOf(c.Leaf)[:32]
			out = append(out, c)
		}
	}
	return first(out), nil
}

// first keeps the first of several items with the same place: what is served comes first.
func first(all []*certificate) []*certificate {
	seen := make(map[string]bool)
	return slices.DeleteFunc(all, func(c *certificate) bool {
		again := seen[c.place]
		seen[c.place] = true
		return again
	})
}

// describe returns the item of the certificate whose records begin with stem. parts are those of
// its key below certificates/.
func (r *Rekeyer) describe(ctx context.Context, stem string, parts []string) (*certificate, error) {
	text, err := r.Shared.Load(ctx, stem+".crt")
	if err != nil {
		return nil, err
	}
	leaf, err := decodeLeaf(text)
	if err != nil {
		return nil, errUnreadable
	}
	c := &certificate{Issuer: parts[1], Site: parts[2], Leaf: leaf.Raw, SPKI: hashOf(leaf.RawSubjectPublicKeyInfo)}
	for _, ext := range []string{".key", ".key" + Compromised} {
		private, err := r.Shared.Load(ctx, stem+ext)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if signer, err := decodeKey(private); err == nil && c.Key == "" && spkiOf(signer) == c.SPKI {
			c.Key = string(private)
		}
	}
	var meta struct {
		SANs []string        `json:"sans"`
		Data json.RawMessage `json:"issuer_data"`
	}
	raw, err := r.Shared.Load(ctx, stem+".json")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var acme struct {
		CA string `json:"ca"`
	}
	if json.Unmarshal(raw, &meta) == nil && json.Unmarshal(meta.Data, &acme) == nil {
		c.CA = acme.CA
	}
	if c.CA == "" {
		c.Data = meta.Data
	}
	c.Name = subject(meta.SANs, leaf, c.Site)
	return c, nil
}

// subject returns the name that was ordered.
func subject(sans []string, leaf *x509.Certificate, site string) string {
	names := append(slices.Clone(sans), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if i := slices.IndexFunc(names, func(n string) bool { return certmagic.StorageKeys.Safe(n) == site }); i >= 0 {
		return names[i]
	}
	return site
}
