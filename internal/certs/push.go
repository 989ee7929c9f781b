package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/quarantine"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

const (
	pushRetry   = 250 * time.Millisecond // after the first failure to read the storage; doubled with each
	pushLimit   = time.Minute            // the longest pause
	pushTimeout = 10 * time.Second       // for one look
)

// pusher makes this node serve certificates as soon as they are stored, whichever node ordered
// them. certmagic looks into the storage only when the certificate in memory is due. So it would
// serve one that was replaced early for weeks, and take the renewal information of one certificate
// for that of another. Its methods are safe for concurrent use.
type pusher struct {
	loader     *loader
	obtainer   *obtainer
	demands    *demands
	quarantine *quarantine.Quarantine
	log        *slog.Logger

	life  context.Context
	tasks notify.Tasks

	mu      sync.Mutex
	pushing map[string]chan struct{} // of a directory that a goroutine looks after; an element makes it look once more
}

// stored is called on every node after something below certificates/ISSUER/site/ has changed, by
// the goroutine that applies the change. It does not block. Changes during a look cost one more
// look.
func (p *pusher) stored(site string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wake := p.pushing[site]
	if wake == nil {
		wake = make(chan struct{}, 1)
		p.pushing[site] = wake
		p.tasks.Go(func() { p.push(site, wake) })
		return
	}
	select {
	case wake <- struct{}{}:
	default:
	}
}

// push looks at one directory until its certificates are served. It does not give up: the private
// key of an old certificate may be known to others.
func (p *pusher) push(site string, wake <-chan struct{}) {
	for pause := pushRetry; ; {
		if p.look(site) {
			p.mu.Lock()
			select {
			case <-wake:
				p.mu.Unlock()
				pause = pushRetry
				continue
			default:
			}
			delete(p.pushing, site)
			p.mu.Unlock()
			return
		}
		select {
		case <-p.life.Done():
			return
		case <-wake:
		case <-time.After(pause):
			pause = min(2*pause, pushLimit)
		}
	}
}

// look refreshes the names whose certificates are in a directory, and reports whether that is done.
func (p *pusher) look(site string) bool {
	ok := true
	for _, name := range p.loader.names.at(site) {
		if p.loader.names.isDeclared(name) {
			ok = p.lookAt(name) && ok
		} else {
			ok = p.lookOnDemand(site, name) && ok
		}
	}
	return ok
}

// lookAt is look for one declared name.
func (p *pusher) lookAt(name string) bool {
	ctx, cancel := context.WithTimeout(p.life, pushTimeout)
	defer cancel()
	err := p.loader.refresh(ctx, name)
	switch {
	case err == nil && p.loader.serves(name):
		p.obtainer.tried(name, nil)
	case err == nil || errors.Is(err, fs.ErrNotExist):
		// It has expired, or was deleted: certmagic deletes what it has revoked. What is in memory is
		// served until there is another one.
		p.obtainer.start(name)
	default:
		if err = p.quarantine.Certificate(p.life, name, err); err == nil {
			p.obtainer.start(name)
			return true
		}
		stale := fmt.Errorf("the newest certificate cannot be loaded: %w", err)
		if p.loader.names.notRenewed(name, stale) && p.life.Err() == nil {
			p.log.Warn("the newest certificate cannot be loaded; will try again", "domain", name, "error", err)
		}
		return false
	}
	return true
}

// lookOnDemand is look for one name on demand.
func (p *pusher) lookOnDemand(site, name string) bool {
	if len(p.loader.exact(name)) > 0 {
		ctx, cancel := context.WithTimeout(p.life, pushTimeout)
		defer cancel()
		err := p.loader.refresh(ctx, name)
		if err == nil {
			return true
		}
		if !errors.Is(err, fs.ErrNotExist) {
			if p.quarantine.Certificate(p.life, name, err) == nil {
				return false // it is missing now
			}
			p.log.Warn("the newest certificate cannot be loaded; will try again", "domain", name, "error", err)
			return false
		}
		// It was deleted. The next handshake asks whether there may be another one, and orders it.
		p.demands.withdraw(name)
	}
	p.loader.names.drop(site, name)
	return true
}
