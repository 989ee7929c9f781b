package view

import (
	"io"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

func (c *Cluster) writeRoles(w io.Writer, s term.Style, now time.Time) {
	t := term.NewTable("ROLE", "HOLDER", "HELD FOR", "WAITING", "NOTE")
	for _, r := range c.Best.Roles {
		note, h := roleNote(r)
		t.Row(r.Name, c.holder(r), heldFor(r, now), r.Waiting, note, h)
	}
	t.Write(w, s)
}

// WriteRoles prints the roles that are held, with their fences and groups.
func (c *Cluster) WriteRoles(w io.Writer, s term.Style, now time.Time) {
	t := term.NewTable("ROLE", "HOLDER", "HELD FOR", "WAITING", "FENCE", "GROUP", "NOTE")
	for _, r := range c.Best.Roles {
		note, h := roleNote(r)
		t.Row(r.Name, c.holder(r), heldFor(r, now), r.Waiting, r.Fence, r.Group, note, h)
	}
	t.Write(w, s)
}

func roleNote(r flotilla.RoleStatus) (string, term.Hue) {
	switch {
	case r.Holder == "":
		return "", term.Bad
	case r.HoldDown:
		return "its holder is gone", term.Bad
	case r.Yields:
		return "is being handed over", term.Odd
	case r.Pinned:
		return "moved by hand", term.Plain
	}
	return "", term.Plain
}

func (c *Cluster) holder(r flotilla.RoleStatus) string {
	if r.Holder == "" {
		return "none known"
	}
	return c.NameOf(r.Holder)
}

func heldFor(r flotilla.RoleStatus, now time.Time) string {
	if r.Since.UnixNano() <= 0 {
		return "" // not known
	}
	return term.Span(now.Sub(r.Since))
}
