package show

import (
	"bytes"
	"flag"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is SameAsFile for output whose lines must fit into the columns.
func golden(t *testing.T, name, got string) {
	t.Helper()
	for line := range strings.Lines(got) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > term.Columns {
			t.Errorf("a line has %d characters: %s", n, line)
		}
		if strings.HasSuffix(line, " \n") {
			t.Errorf("a line ends with space: %q", line)
		}
	}
	viewtest.SameAsFile(t, *update, name, got)
}

func TestWrite(t *testing.T) {
	for name, c := range viewtest.Clusters(t) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			Status(&out, term.Style{}, c, viewtest.Today())
			golden(t, "status_"+name, out.String())
			if strings.Contains(out.String(), "\x1b") {
				t.Error("it is painted, or passes on what a node has said")
			}
		})
	}
	t.Run("odd painted", func(t *testing.T) {
		var out bytes.Buffer
		Status(&out, term.Style{On: true}, viewtest.Clusters(t)["odd"], viewtest.Today())
		viewtest.SameAsFile(t, *update, "status_odd_painted", out.String())
	})
	t.Run("members zones", func(t *testing.T) {
		var out bytes.Buffer
		Members(&out, term.Style{}, viewtest.Clusters(t)["zones"])
		golden(t, "members_zones", out.String())
	})
	t.Run("roles absent", func(t *testing.T) {
		var out bytes.Buffer
		Roles(&out, term.Style{}, viewtest.Clusters(t)["absent"].Roles(), viewtest.Today())
		golden(t, "roles_absent", out.String())
	})
}

func TestChanges(t *testing.T) {
	all := viewtest.Clusters(t)
	var out bytes.Buffer
	for _, step := range []struct{ before, now Facts }{
		{FactsOf(all["well"]), FactsOf(all["well"])},
		{FactsOf(all["well"]), FactsOf(all["drained"])},
		{FactsOf(all["drained"]), FactsOf(all["absent"])},
		{nil, FactsOf(all["lost"])},
		{FactsOf(all["lost"]), FactsOf(all["odd"])},
	} {
		out.WriteString("--\n")
		step.now.WriteChanges(&out, viewtest.Today(), step.before)
	}
	viewtest.SameAsFile(t, *update, "changes", out.String())
}
