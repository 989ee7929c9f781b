package certs

import (
	"context"
	"fmt"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/certs/staple"
)

// events handles certmagic's events, before TLS.Configure's OnEvent does, on the goroutine that
// does what the event is about.
type events struct {
	orders   *orderer
	obtainer *obtainer
	demands  *demands
	staples  *staple.Stapler
	user     func(ctx context.Context, event string, data map[string]any) error // nil: there is none
}

// observe is certmagic's OnEvent. An error for cert_obtaining prevents the order.
func (e *events) observe(ctx context.Context, what string, data map[string]any) error {
	release := func() {}
	name, _ := data["identifier"].(string)
	renewal, _ := data["renewal"].(bool)
	switch what {
	case "cert_obtaining": // for renewals too, and before each retry; the lock of the name is held
		demand := e.demands.has(name)
		var allowed func(context.Context, string) error
		if demand && !attemptOf(ctx).demand {
			allowed = e.demands.renewable
		}
		var err error
		if release, err = e.orders.admit(ctx, name, demand, allowed); err != nil {
			e.notRenewed(ctx, name, err)
			return err
		}
	case "cert_failed":
		if err, ok := data["error"].(error); ok {
			issuers, _ := data["issuers"].([]string)
			e.orders.failed(ctx, name, issuers, err)
			e.notRenewed(ctx, name, err)
		}
	case "cert_obtained":
		place, _ := data["certificate_path"].(string)
		issuer, _ := data["issuer"].(string)
		e.orders.obtained(ctx, name, issuer, place)
	case "cached_managed_cert":
		sans, _ := data["sans"].([]string)
		e.demands.learn(sans)
		e.staples.Keep(sans)
	}
	if e.user != nil {
		if err := e.user(ctx, what, data); err != nil {
			release() // there is no order
			return err
		}
	}
	if what == "cert_obtaining" {
		e.orders.begun(ctx, name, renewal)
	}
	return nil
}

// notRenewed records why name has no newer certificate. It logs that once, and only of certmagic's
// own orders: who places another one logs how it ends.
func (e *events) notRenewed(ctx context.Context, name string, err error) {
	news := e.orders.loader.names.notRenewed(name, fmt.Errorf("there is no newer certificate: %w", err))
	if news && attemptOf(ctx).limit == nil && e.obtainer.life.Err() == nil {
		e.orders.log.Warn("a certificate was not renewed; will try again", "event", event.OrderRefused, "domain", name, "error", err)
	}
	e.obtainer.takeOver(ctx, name)
}
