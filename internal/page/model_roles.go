package page

import (
	"fmt"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// colours is how many colours the time lines have. Nodes beyond share them.
const colours = 6

// roles is the table of roles, with a time line for each.
type roles struct {
	Rows   []role
	More   int
	Legend []owner // the nodes in the time lines
	// Idle and Unknown say that in a part of a time line nobody held the role, or that it is not
	// known who did.
	Idle, Unknown bool
}

// owner is a node in the time lines. Colour is from 0.
type owner struct {
	Name   text
	Colour int
}

// role is a row of the table.
type role struct {
	Key     string
	Name    text
	Group   text
	Holder  text
	Nobody  bool
	Since   moment
	HeldFor string
	Outage  string // before the holder got it
	Waiting int
	Note    text
	Grade   view.Grade
	Parts   []part
	InWords string // the time line, for those who do not see it
}

// part is a part of a time line, from the left to the right.
type part struct {
	X, Width string // in percent
	Title    string
	Label    text
	Kind     spanKind
	Colour   int
}

func newRoles(c *view.Cluster, happened []event.Event, now time.Time) roles {
	var out roles
	changes := changesOf(happened, now)
	painted := newPalette(c)
	some, more := first(c.Roles(), maxRoles)
	out.More = more
	for _, r := range some {
		one := role{
			Key: key(r.Name), Name: cut(r.Name, maxName), Group: cut(r.Group, maxName),
			Holder: cut(r.HolderName, maxName), Nobody: r.Holder == "", Waiting: r.Waiting,
			Note: cut(r.Note, maxNote), Grade: r.Grade,
		}
		if !one.Nobody && r.HeldFor(now) != "" {
			one.HeldFor, one.Since = r.HeldFor(now), at(r.Since, now)
		}
		if r.Outage > 0 {
			one.Outage = lasted(r.Outage)
		}
		var said []string
		for _, s := range timeLine(&r, changes[r.Name], now) {
			p := painted.part(s, now)
			out.Idle = out.Idle || p.Kind == nobody || p.Kind == heldDown
			out.Unknown = out.Unknown || p.Kind == unknown
			one.Parts = append(one.Parts, p)
			said = append(said, p.Title)
		}
		one.InWords = strings.Join(said, "; ")
		out.Rows = append(out.Rows, one)
	}
	out.Legend = painted.used
	return out
}

// palette gives each node a colour: in the order of the table of nodes, then as they come.
type palette struct {
	index map[string]int
	used  []owner // in the order in which the time lines name them
	known map[string]bool
}

func newPalette(c *view.Cluster) *palette {
	p := &palette{index: make(map[string]int), known: make(map[string]bool)}
	for _, n := range c.Nodes {
		p.colour(n.Name)
	}
	return p
}

func (p *palette) colour(name string) int {
	i, ok := p.index[name]
	if !ok {
		i = len(p.index)
		p.index[name] = i
	}
	return i % colours
}

// part returns a part of the time line that ends now.
func (p *palette) part(s span, now time.Time) part {
	whole := float64(hour)
	begin := now.Add(-hour)
	out := part{
		X: percent(float64(s.from.Sub(begin)), whole), Width: percent(float64(s.to.Sub(s.from)), whole),
		Kind: s.kind,
	}
	who := "nobody"
	switch s.kind {
	case held:
		out.Label, out.Colour = cut(s.node, maxName), p.colour(s.node)
		who = out.Label.Short
		if !p.known[s.node] && len(p.used) < maxNodes {
			p.known[s.node] = true
			p.used = append(p.used, owner{out.Label, out.Colour})
		}
	case heldDown:
		who = "nobody, until nothing of the last holder is seen"
	case unknown:
		who = "not known"
	}
	const clock = "15:04:05"
	from := "from " + s.from.UTC().Format(clock)
	if !s.from.After(begin) {
		from = "since before " + begin.UTC().Format(clock)
	}
	until := " to " + s.to.UTC().Format(clock)
	if !s.to.Before(now) {
		until = ""
	}
	out.Title = fmt.Sprintf("%s: %s%s (%s)", who, from, until, plaintext.Span(s.to.Sub(s.from)))
	return out
}
