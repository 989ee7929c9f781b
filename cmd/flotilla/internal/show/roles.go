package show

import (
	"io"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// Roles prints the roles that are held, with their fences and groups.
func Roles(w io.Writer, s term.Style, roles []view.Role, now time.Time) {
	t := term.NewTable("ROLE", "HOLDER", "HELD FOR", "WAITING", "FENCE", "GROUP", "NOTE")
	for _, r := range roles {
		t.Row(r.Name, r.HolderName, r.HeldFor(now), r.Waiting, r.Fence, r.Group, r.Note, noteHue(r))
	}
	t.Write(w, s)
}

func writeRoles(w io.Writer, s term.Style, roles []view.Role, now time.Time) {
	t := term.NewTable("ROLE", "HOLDER", "HELD FOR", "WAITING", "NOTE")
	for _, r := range roles {
		t.Row(r.Name, r.HolderName, r.HeldFor(now), r.Waiting, r.Note, noteHue(r))
	}
	t.Write(w, s)
}

// noteHue returns the colour of a role's note. A note without a fault has none.
func noteHue(r view.Role) term.Hue {
	if r.Grade == view.Good {
		return term.Plain
	}
	return Hue(r.Grade)
}
