package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// The Tab key reaches the link to the content, each table, and what is folded, in the order of the
// page. What has the focus shows it.
func TestKeyboard(t *testing.T) {
	b := browser(t)
	for _, width := range []int64{360, 1440} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			_, url := serve(t, healthy(t))
			tb := open(t, b)
			tb.size(width, 900)
			tb.show(url)
			var got []string
			for range 8 {
				tb.do(chromedp.KeyEvent(kb.Tab))
				got = append(got, eval[string](tb, `(() => {
  const e = document.activeElement;
  const style = getComputedStyle(e);
  const box = e.getBoundingClientRect();
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.bottom > 0 && box.top < innerHeight;
  return (e.getAttribute("aria-label") || e.textContent.trim()) + (seen ? "" : " (its focus cannot be seen)");
})()`))
			}
			want := []string{
				"Skip to the content", "Table of nodes", "Table of roles", "The last hour in words", "Table of certificates",
				"Table of the newest events", "Older events: 14", "",
			}
			if got[7] = ""; !slices.Equal(got, want) {
				t.Errorf("Tab reaches %q, want %q", got, want)
			}
			tb.show(url)
			tb.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter))
			if id := eval[string](tb, `document.activeElement.id`); id != "main" {
				t.Errorf("the link leads to %q", id)
			}
		})
	}
}

// thing is a node of the accessibility tree.
type thing struct {
	role, name string
	level      int
	parent     *thing
}

// tree returns the accessibility tree, in the order of the document.
func (tb *tab) tree() []*thing {
	tb.t.Helper()
	got := run(tb, func(ctx context.Context, target *chromedp.Target) (accessibility.GetFullAXTreeResult, error) {
		return cdp.Call(ctx, target, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	})
	text := func(v *accessibility.Value) (out string) {
		if v != nil {
			json.Unmarshal(v.Value, &out)
		}
		return out
	}
	byID := make(map[accessibility.NodeID]*accessibility.Node)
	for _, n := range got.Nodes {
		byID[n.NodeID] = n
	}
	var all []*thing
	var visit func(id accessibility.NodeID, parent *thing)
	visit = func(id accessibility.NodeID, parent *thing) {
		n := byID[id]
		if n == nil {
			return
		}
		if !n.Ignored {
			one := &thing{role: text(n.Role), name: strings.TrimSpace(text(n.Name)), parent: parent}
			for _, p := range n.Properties {
				if p.Name == "level" {
					json.Unmarshal(p.Value.Value, &one.level)
				}
			}
			all, parent = append(all, one), one
		}
		for _, child := range n.ChildIDs {
			visit(child, parent)
		}
	}
	visit(got.Nodes[0].NodeID, nil)
	return all
}

// Assistive technology gets landmarks, headings in order, tables with headers, and a name for all
// that is a graphic, a region or can be used. At the width of a phone tables are still tables.
func TestAccessibility(t *testing.T) {
	b := browser(t)
	for name, s := range states(t) {
		for _, width := range []int64{360, 1440} {
			t.Run(fmt.Sprint(name, " ", width), func(t *testing.T) {
				_, url := serve(t, s)
				tb := open(t, b)
				tb.size(width, 900)
				tb.show(url)
				tables(t, tb)
				count := make(map[string]int)
				level := 0
				for _, n := range tb.tree() {
					count[n.role]++
					switch n.role {
					case "image", "region", "link", "button", "table", "DisclosureTriangle", "heading", "rowheader", "columnheader":
						if n.name == "" {
							t.Errorf("a %s has no name", n.role)
						}
					}
					if n.role == "heading" {
						if n.level > level+1 {
							t.Errorf("%q has level %d after %d", n.name, n.level, level)
						}
						level = n.level
					}
				}
				for role, want := range map[string]int{"banner": 1, "main": 1, "contentinfo": 1, "status": 1} {
					if count[role] != want {
						t.Errorf("%d of the role %s, want %d", count[role], role, want)
					}
				}
				for what, expression := range map[string]string{
					"one part speaks":            `document.querySelectorAll("[aria-live], [role=status], [role=alert], [role=log]").length === 1`,
					"it speaks politely":         `document.querySelector("[aria-live]").getAttribute("aria-live") === "polite"`,
					"the language is said":       `document.documentElement.lang === "en"`,
					"the title says problems":    `/^(\d+|No) problems?/.test(document.title)`,
					"no ID twice":                `new Set([...document.querySelectorAll("[id]")].map((e) => e.id)).size === document.querySelectorAll("[id]").length`,
					"what can be used is large":  `[...document.querySelectorAll("summary, a")].every((e) => e.getBoundingClientRect().height >= 24)`,
					"times are for machines too": `[...document.querySelectorAll("time")].every((e) => !isNaN(Date.parse(e.dateTime)))`,
				} {
					if !eval[bool](tb, expression) {
						t.Errorf("this is not so: %s", what)
					}
				}
			})
		}
	}
}

// tables checks that each table has a name, and that each cell is in a row and has a header.
func tables(t *testing.T, tb *tab) {
	t.Helper()
	var table *thing
	headers, cells := 0, 0
	end := func() {
		if table != nil && cells > 0 && (headers < 2 || cells%headers != 0) {
			t.Errorf("the table %q has %d headers and %d cells", table.name, headers, cells)
		}
		headers, cells = 0, 0
	}
	for _, n := range tb.tree() {
		switch n.role {
		case "table":
			end()
			table = n
		case "columnheader":
			headers++
		case "rowheader", "cell", "gridcell":
			cells++
			if n.parent == nil || n.parent.role != "row" {
				t.Errorf("the %s %q is in no row", n.role, n.name)
			}
		}
	}
	end()
}
