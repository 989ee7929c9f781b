package view

import (
	"time"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/status"
)

// Role is a role of the cluster.
type Role struct {
	status.Role

	// HolderName is the name of the node that holds it, or "none known".
	HolderName string

	// Note says what is special about it. Empty: nothing is. Grade says how bad that is.
	Note  string
	Grade Grade
}

// Roles returns the roles, by name.
func (c *Cluster) Roles() []Role {
	var out []Role
	for _, r := range c.Best.Roles {
		one := Role{Role: r, HolderName: "none known"}
		if r.Holder != "" {
			one.HolderName = c.NameOf(r.Holder)
		}
		one.Note, one.Grade = roleNote(r)
		out = append(out, one)
	}
	return out
}

func roleNote(r status.Role) (string, Grade) {
	switch {
	case r.Holder == "":
		return "", Bad
	case r.HoldDown:
		return "its holder is gone", Bad
	case r.Yields:
		return "is being handed over", Odd
	case r.Pinned:
		return "moved by hand", Good
	}
	return "", Good
}

// HeldFor returns for how long the holder has had the role, or "" if that is not known.
func (r *Role) HeldFor(now time.Time) string {
	if r.Since.UnixNano() <= 0 {
		return ""
	}
	return plaintext.Span(now.Sub(r.Since))
}
