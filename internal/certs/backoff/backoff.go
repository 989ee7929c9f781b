package backoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// How long to wait between tries.
const (
	RetryFirst = time.Second // after the first failure; doubled with each
	RetryLimit = time.Minute // between tries when the storage or the network failed
	RetryQuick = 1           // such pauses at most after orders that the authority refused, then
	// doubled with each; Let's Encrypt takes five failures of a name in an hour
	RetrySlow = 5 * time.Minute
	RetryLast = time.Hour // at most
	// between tries that were brought forward because the name leads here now
	RetryLed = 10 * time.Minute
)

const (
	Place = "flotilla/orders" // the directory of the records
	// no longer pause is accepted; Let's Encrypt's limits count for a week
	pauseLongest = 8 * 24 * time.Hour
	pauseDefault = RetrySlow       // if an authority limits and does not say for how long
	pauseText    = 500             // bytes of an error that are kept
	pauseStore   = 5 * time.Second // for storing one
	// a record is deleted when it has not changed for so long after its end
	pauseForget  = 48 * time.Hour
	pausesAtOnce = 1000 // records of names; more stay in the memory of their node
)

// Pause is a time in which nothing is ordered.
type Pause struct {
	At   time.Time     `json:"at"`   // when it began, by the clock of the node that wrote it
	Wait time.Duration `json:"wait"` // how long it lasts
	Err  string        `json:"error,omitempty"`
	Node string        `json:"node,omitempty"` // the node that wrote it, for people

	// Of a name.
	Name string `json:"name,omitempty"`
	// orders that failed since the last that did not
	Failures int           `json:"failures,omitempty"`
	Quick    int           `json:"quick,omitempty"` // pauses that were short
	Slow     time.Duration `json:"slow,omitempty"`  // the last long one
	Away     bool          `json:"away,omitempty"`  // the name did not lead to this cluster then
	// when an order was brought forward because it led here
	Led time.Time `json:"led,omitzero"`

	// Of limits/ISSUER/new.
	Sure bool `json:"sure,omitempty"` // more than one name was refused: it holds for all
}

// Error means that a request, such as an order, was not sent, and tells when the next may be.
type Error struct {
	Until time.Time // when the next may be sent
	Why   string    // the error that caused the pause
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("no such request before %s: %s", e.Until.UTC().Format(time.RFC3339), e.Why)
}

// Backoff reads and writes pauses. Its methods are safe for concurrent use.
type Backoff struct {
	storage certmagic.Storage
	peek    func(key string) ([]byte, bool) // reads a record from memory, without waiting
	node    func() string                   // the name of this node
	log     *slog.Logger

	mu    sync.Mutex
	known map[string]knownPause // by key
}

// knownPause is a pause as this process has it.
type knownPause struct {
	Pause
	raw   string    // as it is stored; empty: it could not be stored
	since time.Time // when this process learned of it
}

// New returns the backoff of the cluster with that storage. peek reads a record from memory,
// without waiting, and node returns the name of this node.
func New(peek func(string) ([]byte, bool), node func() string, storage certmagic.Storage, l *slog.Logger) *Backoff {
	return &Backoff{storage: storage, peek: peek, node: node, log: l, known: make(map[string]knownPause)}
}

// OfName returns the key of the failed orders for a name.
func OfName(name string) string { return Place + "/names/" + certmagic.StorageKeys.Safe(name) }

// ofIssuer returns the key of an issuer's limit; what is "all", "new", "revoke", "keychange", or
// "name/" and a name.
func ofIssuer(issuer, what string) string {
	return Place + "/limits/" + certmagic.StorageKeys.Safe(issuer) + "/" + what
}

func ofIssuerName(issuer, name string) string {
	return ofIssuer(issuer, "name/"+certmagic.StorageKeys.Safe(name))
}

// Get returns the pause at key, and how much of it is left: 0 if it is over, or there is none.
func (p *Backoff) Get(key string) (Pause, time.Duration) {
	raw, stored := p.peek(key)
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := p.known[key]
	switch {
	case !stored && (!ok || k.raw != ""):
		delete(p.known, key)
		return Pause{}, 0
	case stored && (!ok || k.raw != string(raw)):
		k = knownPause{raw: string(raw), since: now}
		if err := json.Unmarshal(raw, &k.Pause); err != nil {
			p.log.Warn("a record of failed orders cannot be read and is ignored", "key", key, "error", err)
		}
		p.known[key] = k
	}
	return k.Pause, k.left(now)
}

// left returns how much of k is left.
func (k *knownPause) left(now time.Time) time.Duration {
	passed := max(now.Sub(k.since), now.Round(0).Sub(k.At))
	return max(0, min(k.Wait, pauseLongest)-passed)
}

// put stores a pause that begins now. On this node it holds even if storing fails.
func (p *Backoff) put(ctx context.Context, key string, x Pause) {
	x.At, x.Node = time.Now().Round(0).UTC(), p.node()
	x.Err = x.Err[:min(len(x.Err), pauseText)]
	raw, err := json.Marshal(x)
	if err != nil {
		p.log.Warn("a failed order was not recorded", "key", key, "error", err)
		return
	}
	p.mu.Lock()
	p.known[key] = knownPause{Pause: x, since: time.Now()}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseStore)
	defer cancel()
	if err := p.storage.Store(ctx, key, raw); err != nil {
		p.log.Warn("a failed order is not known to the other nodes", "key", key, "error", err)
	}
}

// Drop deletes the pause at key, if there is one.
func (p *Backoff) Drop(ctx context.Context, key string) {
	_, stored := p.peek(key)
	p.mu.Lock()
	delete(p.known, key)
	p.mu.Unlock()
	if !stored {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseStore)
	defer cancel()
	if err := p.storage.Delete(ctx, key); err != nil {
		p.log.Warn("the record of a failed order cannot be deleted", "key", key, "error", err)
	}
}

// Failure is what is known about an order that failed.
type Failure struct {
	Away     bool // the name did not lead to this cluster
	Stranger bool // it led to a machine that is none of its nodes, or another try will not help soon
	Led      bool // the order had been brought forward because the name led here
}

// Fail records that an order for name has failed.
func (p *Backoff) Fail(ctx context.Context, name string, err error, f Failure) {
	key := OfName(name)
	x, _ := p.Get(key)
	x.Name, x.Err, x.Away = name, err.Error(), f.Away
	x.Failures++
	if f.Led {
		x.Led = time.Now().Round(0).UTC()
	}
	if f.Stranger || x.Quick >= RetryQuick || isFinal(err) {
		x.Slow = min(max(2*x.Slow, RetrySlow), RetryLast)
		x.Wait = x.Slow
	} else {
		x.Wait = min(RetryFirst<<x.Quick, RetryLimit)
		x.Quick++
	}
	x.Wait = x.Wait/2 + rand.N(x.Wait)
	if x.Failures == 1 && p.full(ctx) {
		p.mu.Lock()
		x.At = time.Now().Round(0)
		p.known[key] = knownPause{Pause: x, since: time.Now()}
		p.mu.Unlock()
		return
	}
	p.put(ctx, key, x)
}

// full reports whether there are so many names with failed orders that no more are stored.
func (p *Backoff) full(ctx context.Context) bool {
	keys, err := p.storage.List(ctx, Place+"/names", false)
	return err == nil && len(keys) >= pausesAtOnce
}

// isFinal reports whether the same order would be refused again in a moment.
func isFinal(err error) bool {
	problem := acme.Problem{}
	if !errors.As(err, &problem) {
		return false
	}
	switch problem.Type {
	case acme.ProblemTypeRateLimited, acme.ProblemTypeRejectedIdentifier, acme.ProblemTypeUnsupportedIdentifier, acme.ProblemTypeCAA,
		acme.ProblemTypeExternalAccountRequired, acme.ProblemTypeUserActionRequired, acme.ProblemTypeInvalidContact,
		acme.ProblemTypeUnsupportedContact, acme.ProblemTypeBadCSR, acme.ProblemTypeBadPublicKey:
		return true
	}
	return problem.Status == statusTooManyRequests
}

// Refused reports whether err is an authority's answer to an order. An old nonce does not count:
// acmez tries again by itself.
func Refused(err error) bool {
	problem := acme.Problem{}
	return errors.As(err, &problem) && problem.Type != acme.ProblemTypeBadNonce
}

// forward reports whether an order for name may be brought forward because the name leads here now.
func (p *Backoff) forward(name string) bool {
	x, _ := p.Get(OfName(name))
	passed := time.Now().Round(0).Sub(x.Led)
	return x.Away && (passed < 0 || passed >= RetryLed)
}

// For returns what keeps name from being ordered at any of the issuers, nil if nothing does. With
// led the failures of the name itself are ignored, if that is allowed now.
func (p *Backoff) For(name string, issuers []certmagic.Issuer, led bool) *Error {
	var longest time.Duration
	var why string
	if x, left := p.Get(OfName(name)); left > 0 && !(led && p.forward(name)) {
		longest, why = left, x.Err
	}
	if x, left := p.limits(name, issuers); left > longest {
		longest, why = left, x.Err
	}
	if longest <= 0 {
		return nil
	}
	return &Error{Until: time.Now().Round(0).Add(longest).Round(time.Second), Why: why}
}

// Revocation returns what keeps certificates of an issuer from being revoked, nil if nothing does.
func (p *Backoff) Revocation(issuer certmagic.Issuer) *Error {
	longest, most := p.Get(ofIssuer(issuer.IssuerKey(), "all"))
	if x, left := p.Get(ofIssuer(issuer.IssuerKey(), "revoke")); left > most {
		longest, most = x, left
	}
	if most <= 0 {
		return nil
	}
	return &Error{Until: time.Now().Round(0).Add(most).Round(time.Second), Why: longest.Err}
}

// limits returns the limit of the issuer that will accept an order for name first.
func (p *Backoff) limits(name string, issuers []certmagic.Issuer) (first Pause, least time.Duration) {
	for i, issuer := range issuers {
		x, left := p.limit(issuer.IssuerKey(), name)
		if left <= 0 {
			return Pause{}, 0
		}
		if i == 0 || left < least {
			first, least = x, left
		}
	}
	return first, least
}

// limit returns the longest limit of an issuer for an order of name.
func (p *Backoff) limit(issuer, name string) (longest Pause, most time.Duration) {
	for _, key := range []string{ofIssuer(issuer, "all"), ofIssuer(issuer, "new"), ofIssuerName(issuer, name)} {
		x, left := p.Get(key)
		if key == ofIssuer(issuer, "new") && !x.Sure {
			continue
		}
		if left > most {
			longest, most = x, left
		}
	}
	return longest, most
}

// Sweep deletes records that have been over for a long time.
func (p *Backoff) Sweep(ctx context.Context) {
	keys, err := p.storage.List(ctx, Place, true)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			p.log.Warn("records of failed orders cannot be cleaned up; will try again", "error", err)
		}
		return
	}
	for _, key := range keys {
		x, left := p.Get(key)
		p.mu.Lock()
		k, ok := p.known[key]
		p.mu.Unlock()
		if ok && left <= 0 && time.Since(k.since) >= pauseForget && time.Since(k.since) >= x.Wait {
			p.Drop(ctx, key)
		}
	}
}
