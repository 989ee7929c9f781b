package testca

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	orderLife = 24 * time.Hour
	maxNames  = 100 // of an order
	maxName   = 253 // bytes of a name
)

var errNoName = errors.New("it is neither a domain name nor an IP address")

// orderRequest is what a client orders.
type orderRequest struct {
	Identifiers []acme.Identifier `json:"identifiers"`
	Replaces    string            `json:"replaces"`
}

// checkName returns what is wrong with a name that is ordered.
func checkName(i acme.Identifier) error {
	switch i.Type {
	case "ip":
		if ip, err := netip.ParseAddr(i.Value); err != nil || ip.String() != i.Value {
			return errNoName
		}
		return nil
	case "dns":
		name := strings.TrimPrefix(i.Value, "*.")
		if len(name) == 0 || len(name) > maxName || name != strings.ToLower(name) {
			return errNoName
		}
		if _, err := netip.ParseAddr(name); err == nil {
			return errNoName
		}
		for label := range strings.SplitSeq(name, ".") {
			if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				return errNoName
			}
		}
		return nil
	}
	return fmt.Errorf("%q is no type of an identifier; use dns or ip", i.Type)
}

// newOrder accepts an order (RFC 8555, 7.4).
func (a *Authority) newOrder(x *exchange, placed *Order) *answer {
	var want orderRequest
	if err := decode(x.msg.payload, &want); err != nil {
		return problem(http.StatusBadRequest, "malformed", "%v", err)
	}
	if n := len(want.Identifiers); n == 0 || n > maxNames {
		return problem(http.StatusBadRequest, "malformed", "the order has %d names; use 1 to %d", n, maxNames)
	}
	for n, i := range want.Identifiers {
		if err := checkName(i); err != nil {
			return problem(http.StatusBadRequest, "rejectedIdentifier", "%.300q: %v", i.Value, err)
		}
		if slices.Contains(want.Identifiers[:n], i) {
			return problem(http.StatusBadRequest, "malformed", "%s is ordered twice", i.Value)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if want.Replaces != "" {
		if ans := a.checkReplaces(x, want.Replaces); ans != nil {
			return ans
		}
	}
	placed.Refused = false
	o := &order{
		id: strconv.Itoa(a.number()), who: x.who, names: want.Identifiers, expires: a.Now().Add(orderLife), placed: placed,
	}
	if !a.cfg.Trusting {
		for _, i := range want.Identifiers {
			z := a.authorize(x.who, i)
			if len(z.challenges) == 0 {
				return problem(http.StatusBadRequest, "rejectedIdentifier", "no challenge is offered for %s", i.Value)
			}
			o.authz = append(o.authz, z)
		}
	}
	for _, z := range o.authz {
		a.authz[z.id] = z
		for _, c := range z.challenges {
			a.challenges[c.id] = c
		}
	}
	a.orders[o.id] = o
	return o.answer(x, http.StatusCreated, a.Now())
}

// authorize returns a new authorization. a.mu is held.
func (a *Authority) authorize(who *account, i acme.Identifier) *authorization {
	z := &authorization{id: strconv.Itoa(a.number()), who: who, name: i, state: acme.StatusPending, expires: a.Now().Add(orderLife)}
	z.name.Value, z.wildcard = strings.CutPrefix(i.Value, "*.")
	for _, kind := range a.cfg.Challenges {
		if z.wildcard && kind != DNS01 || i.Type == "ip" && kind == DNS01 {
			continue
		}
		c := &challenge{id: strconv.Itoa(a.number()), of: z, kind: kind, token: rand.Text(), state: acme.StatusPending}
		z.challenges = append(z.challenges, c)
	}
	return z
}

// pollOrder tells about an order.
func (a *Authority) pollOrder(x *exchange) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.orders[x.id]
	if o == nil || o.who != x.who {
		return problem(http.StatusNotFound, "malformed", "the account has no such order")
	}
	return o.answer(x, http.StatusOK, a.Now())
}

// authorization tells about an authorization, or deactivates it (RFC 8555, 7.5).
func (a *Authority) authorization(x *exchange) *answer {
	var want struct {
		Status string `json:"status"`
	}
	if err := decode(x.msg.payload, &want); err != nil {
		return problem(http.StatusBadRequest, "malformed", "%v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	z := a.authz[x.id]
	if z == nil || z.who != x.who {
		return problem(http.StatusNotFound, "malformed", "the account has no such authorization")
	}
	if want.Status == acme.StatusDeactivated {
		z.state = acme.StatusDeactivated
	}
	body := struct {
		Identifier acme.Identifier `json:"identifier"`
		Status     string          `json:"status"`
		Expires    time.Time       `json:"expires"`
		Challenges []any           `json:"challenges"`
		Wildcard   bool            `json:"wildcard,omitempty"`
	}{z.name, z.state, z.expires.UTC().Truncate(time.Second), nil, z.wildcard}
	for _, c := range z.challenges {
		if z.state == acme.StatusPending || c.state == acme.StatusValid || c.failure != nil {
			body.Challenges = append(body.Challenges, c.body(x))
		}
	}
	return &answer{status: http.StatusOK, body: body}
}

// challenge begins to validate a challenge (RFC 8555, 7.5.1), or tells about it.
func (a *Authority) challenge(x *exchange) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.challenges[x.id]
	if c == nil || c.of.who != x.who {
		return problem(http.StatusNotFound, "malformed", "the account has no such challenge")
	}
	if len(x.msg.payload) > 0 && c.state == acme.StatusPending && c.of.state == acme.StatusPending {
		c.state = acme.StatusProcessing
		go a.validate(c, c.token+"."+x.who.key.thumb)
	}
	header := http.Header{"Link": {"<" + x.base + "/" + string(Authorize) + "/" + c.of.id + `>;rel="up"`}}
	return &answer{status: http.StatusOK, header: header, body: c.body(x)}
}
