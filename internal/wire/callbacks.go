package wire

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/history"
)

// callbacks are those of a Config as the parts of a Port want them: none is nil. It is a
// rafttransport.Policy, rafttransport.History and rafttransport.Node.
type callbacks struct{ cfg *Config }

// Resolve is Config.Resolve.
func (c callbacks) Resolve(id string) (addr string, ok bool) {
	if c.cfg.Resolve == nil {
		return "", false
	}
	return c.cfg.Resolve(id)
}

// Admit is Config.Admit.
func (c callbacks) Admit(id string) error {
	if c.cfg.Admit == nil {
		return nil
	}
	return c.cfg.Admit(id)
}

// Fresh is Config.Fresh. It refuses no peer that does not name its incarnation.
func (c callbacks) Fresh(id, incarnation string) error {
	if c.cfg.Fresh == nil || incarnation == "" {
		return nil
	}
	if err := c.cfg.Fresh(id, incarnation); err != nil {
		return fmt.Errorf("it is not the newest process of its node: %w", err)
	}
	return nil
}

// MayLead is Config.MayLead.
func (c callbacks) MayLead(last uint64) error {
	if c.cfg.MayLead == nil {
		return nil
	}
	return c.cfg.MayLead(last)
}

// Sum is Config.Sum.
func (c callbacks) Sum(index, term uint64) (sum uint64, ok bool) {
	if c.cfg.Sum == nil {
		return 0, false
	}
	return c.cfg.Sum(index, term)
}

// Compare is Config.Compare.
func (c callbacks) Compare(id string, term uint64, claim history.Claim) error {
	if c.cfg.Compare == nil {
		return nil
	}
	return c.cfg.Compare(id, term, claim)
}

// Term is Config.Term.
func (c callbacks) Term() (term uint64, ok bool) {
	if c.cfg.Term == nil {
		return 0, false
	}
	return c.cfg.Term(), true
}

// Standing is Config.Standing.
func (c callbacks) Standing() (leader string, candidate bool) {
	if c.cfg.Standing == nil {
		return "", false
	}
	return c.cfg.Standing()
}

// Stalled is Config.Stalled.
func (c callbacks) Stalled() bool { return c.cfg.Stalled != nil && c.cfg.Stalled() }

// Durable is Config.Durable.
func (c callbacks) Durable(index uint64) (<-chan struct{}, error) {
	if c.cfg.Durable == nil {
		return nil, nil
	}
	return c.cfg.Durable(index)
}

// Voted is Config.Voted.
func (c callbacks) Voted(term uint64) (<-chan struct{}, error) {
	if c.cfg.Voted == nil {
		return nil, nil
	}
	return c.cfg.Voted(term)
}

// Applied is Config.Applied.
func (c callbacks) Applied(index uint64) error {
	if c.cfg.Applied == nil {
		return nil
	}
	return c.cfg.Applied(index)
}

// Gone is Config.Gone.
func (c callbacks) Gone(id string) {
	if c.cfg.Gone != nil {
		c.cfg.Gone(id)
	}
}

// Matched is Config.Matched.
func (c callbacks) Matched(id string) {
	if c.cfg.Matched != nil {
		c.cfg.Matched(id)
	}
}
