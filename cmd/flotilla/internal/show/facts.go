package show

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// Facts is what "status -watch" reports changes of: a text for each thing.
type Facts map[string]string

// FactsOf returns what a cluster is like.
func FactsOf(c *view.Cluster) Facts {
	f := Facts{"leader": "none"}
	if c.HasLeader() {
		f["leader"] = c.NameOf(c.Best.Leader)
	}
	for _, n := range c.Nodes {
		state, _ := n.State()
		if n.Voter {
			state += ", votes"
		}
		f["node "+n.Name+" "+plaintext.ShortID(n.ID)] = state
	}
	for _, r := range c.Roles() {
		f["role "+r.Name] = r.HolderName
		if r.HoldDown {
			f["role "+r.Name] += ", which is gone"
		}
	}
	all, serving := c.Certificates()
	for _, cert := range all {
		key, text := "certificate "+cert.Name, certificateFact(&cert, serving)
		if other := f[key]; other != "" {
			text = other + "; " + text
		}
		f[key] = text
	}
	return f
}

func certificateFact(c *view.Certificate, serving int) string {
	text, _ := c.State()
	if text == "" {
		text = "until " + c.NotAfter.UTC().Format(time.DateOnly) + " by " + c.Issuer + ", serial " + c.Serial
	}
	if c.Err != "" {
		text += " (" + c.Err + ")"
	}
	if len(c.Nodes) < serving {
		text += " on " + strings.Join(c.Nodes, ", ")
	}
	return text
}

// Answering returns the facts and whether a node answers. When none does, the other facts stay as
// they were last known.
func (f Facts) Answering(answers bool) Facts {
	out := maps.Clone(f)
	if out == nil {
		out = make(Facts)
	}
	out["cluster"] = "no node answers"
	if answers {
		out["cluster"] = "a node answers"
	}
	return out
}

// Equal reports whether nothing has changed.
func (f Facts) Equal(other Facts) bool { return maps.Equal(f, other) }

// WriteChanges prints a line for each fact that has changed since before.
func (f Facts) WriteChanges(w io.Writer, now time.Time, before Facts) {
	both := make(Facts)
	maps.Copy(both, before)
	maps.Copy(both, f)
	for _, k := range slices.Sorted(maps.Keys(both)) {
		was, is := before[k], f[k]
		if was == is {
			continue
		}
		if was == "" {
			was = "-"
		}
		if is == "" {
			is = "-"
		}
		fmt.Fprintf(w, "%s  %s: %s -> %s\n", now.UTC().Format(time.RFC3339), plaintext.Safe(k), plaintext.Safe(was), plaintext.Safe(is))
	}
}
