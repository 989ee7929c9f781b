package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

// How a certificate reaches the nodes that did not order it. Every node has it as soon as it is stored; but certmagic looks into the
// storage only when the one in memory is due, so a certificate that was replaced early would be served for weeks, and one node's
// renewal information be taken for that of another certificate. So the state machine tells of each change, on every node, and
// what is there then is served at once.

const (
	pushRetry   = 250 * time.Millisecond // after the first failure to read the storage; doubled with each
	pushLimit   = time.Minute            // at most
	pushTimeout = 10 * time.Second       // for one look
)

// stored tells that something below certificates/<issuer>/<site>/ has changed in the storage. It is called on every node after the
// change, by the goroutine that applies it, and does not block. What changes while a look is under way costs one more.
func (c *Certs) Stored(site string) {
	c.pushMu.Lock()
	defer c.pushMu.Unlock()
	wake := c.pushing[site]
	if wake == nil {
		wake = make(chan struct{}, 1)
		c.pushing[site] = wake
		c.tasks.Go(func() { c.push(site, wake) })
		return
	}
	select {
	case wake <- struct{}{}:
	default:
	}
}

// storedAny tells that anything may have changed, as after a snapshot.
func (c *Certs) StoredAny() {
	c.mu.Lock()
	sites := make([]string, 0, len(c.sites))
	for site := range c.sites {
		sites = append(sites, site)
	}
	c.mu.Unlock()
	for _, site := range sites {
		c.Stored(site)
	}
}

// push looks at one directory until what it holds is served. It does not give up: a node that serves an old certificate may serve
// one whose key is known to others.
func (c *Certs) push(site string, wake <-chan struct{}) {
	for pause := pushRetry; ; {
		if c.look(site) {
			c.pushMu.Lock()
			select {
			case <-wake:
				c.pushMu.Unlock()
				pause = pushRetry
				continue
			default:
			}
			delete(c.pushing, site)
			c.pushMu.Unlock()
			return
		}
		select {
		case <-c.life.Done():
			return
		case <-wake:
		case <-time.After(pause):
			pause = min(2*pause, pushLimit)
		}
	}
}

// look refreshes the names whose certificates are in this directory, and reports whether that is done.
func (c *Certs) look(site string) bool {
	c.mu.Lock()
	names := slices.Clone(c.sites[site])
	c.mu.Unlock()
	ok := true
	for _, name := range names {
		c.mu.Lock()
		declared := c.names[name] != nil
		c.mu.Unlock()
		if declared {
			ok = c.lookAt(name) && ok
		} else {
			ok = c.lookOnDemand(site, name) && ok
		}
	}
	return ok
}

// lookAt is look for one name that is managed.
func (c *Certs) lookAt(name string) bool {
	ctx, cancel := context.WithTimeout(c.life, pushTimeout)
	defer cancel()
	err := c.refresh(ctx, name)
	switch {
	case err == nil && c.serves(name):
		c.note(name, nil)
	case err == nil || errors.Is(err, fs.ErrNotExist):
		// It has expired, or was deleted, which is what certmagic does with one that it has revoked. What is in memory
		// is served until there is another.
		c.mu.Lock()
		c.start(name)
		c.mu.Unlock()
	default:
		if err = c.setAside(c.life, name, err); err == nil {
			c.mu.Lock()
			c.start(name)
			c.mu.Unlock()
			return true
		}
		if c.noteStale(name, fmt.Errorf("the newest certificate cannot be loaded: %w", err)) && c.life.Err() == nil {
			c.Log.Warn("the newest certificate cannot be loaded; will try again", "domain", name, "error", err)
		}
		return false
	}
	return true
}

// lookOnDemand is look for one name that a handshake has asked for.
func (c *Certs) lookOnDemand(site, name string) bool {
	exact := func() []certmagic.Certificate {
		return slices.DeleteFunc(c.matching(name), func(x certmagic.Certificate) bool { return !slices.Contains(x.Names, name) })
	}
	if len(exact()) > 0 {
		ctx, cancel := context.WithTimeout(c.life, pushTimeout)
		defer cancel()
		err := c.refresh(ctx, name)
		if err == nil {
			return true
		}
		if !errors.Is(err, fs.ErrNotExist) {
			if c.setAside(c.life, name, err) == nil {
				return false // and then it is missing
			}
			c.Log.Warn("the newest certificate cannot be loaded; will try again", "domain", name, "error", err)
			return false
		}
		c.withdraw(name) // it was deleted; the next handshake asks whether there may be another, and orders it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sites[site] = slices.DeleteFunc(c.sites[site], func(s string) bool { return s == name })
	if len(c.sites[site]) == 0 {
		delete(c.sites, site)
	}
	return true
}

// observe has this node hear certmagic's events, before TLS.Configure's OnEvent does, on the goroutine that does what is told.
func (c *Certs) observe() {
	user := c.config.OnEvent
	if user == nil {
		// Else each handshake would put together an event that nobody hears.
		c.config.ShouldEmitFunc = func(event string) bool { return event != "tls_get_certificate" }
	}
	limited := slices.ContainsFunc(c.config.Issuers, func(i certmagic.Issuer) bool {
		_, dev := i.(*devca.Issuer)
		return !dev
	})
	c.config.OnEvent = func(ctx context.Context, event string, data map[string]any) error {
		release := func() {}
		name, _ := data["identifier"].(string)
		switch event {
		case "cert_obtaining": // for renewals too, and before each retry; the lock of the name is held
			var err error
			if release, err = c.obtaining(ctx, name, limited); err != nil {
				c.noteStale(name, fmt.Errorf("there is no newer certificate: %w", err))
				c.takeOver(ctx, name)
				return err
			}
		case "cert_failed":
			if err, ok := data["error"].(error); ok {
				c.failed(ctx, name, err)
			}
		case "cert_obtained":
			place, _ := data["certificate_path"].(string)
			c.obtained(ctx, name, place)
		case "cached_managed_cert":
			sans, _ := data["sans"].([]string)
			c.learn(sans)
			c.staple(sans)
		}
		if user == nil {
			return nil
		}
		err := user(ctx, event, data)
		if err != nil {
			release() // there is no order
		}
		return err
	}
}
