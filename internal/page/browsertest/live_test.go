package browsertest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Without a script the page says everything, and loads itself anew.
func TestWithoutScript(t *testing.T) {
	b := browser(t)
	_, url := serve(t, lostNode(t))
	tb := open(t, b)
	tb.do(call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}), chromedp.Navigate(url))
	content := run(tb, func(ctx context.Context, target *chromedp.Target) (string, error) {
		root, err := cdp.Call(ctx, target, dom.GetDocument, dom.GetDocumentParams{})
		if err != nil {
			return "", err
		}
		// Its NodeID would be forgotten as soon as chromedp itself asks for the document.
		out, err := cdp.Call(ctx, target, dom.GetOuterHTML, dom.GetOuterHTMLParams{BackendNodeID: root.Root.BackendNodeID})
		return out.OuterHTML, err
	})
	for _, want := range []string{
		"1 thing to do", "nobody listens at its address", "vip/198.18.0.100", "shop.example.com", "its session has ended",
		`<noscript><meta http-equiv="refresh" content="10"></noscript>`, `data-state="none"`, "This page loads itself anew",
	} {
		if !strings.Contains(content, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// A change is seen without a reload. What the user has unfolded, focused and scrolled to stays.
func TestUpdate(t *testing.T) {
	b := browser(t)
	w, url := serve(t, healthy(t))
	tb := open(t, b)
	tb.size(800, 700)
	tb.show(url)
	const place = `Math.round(document.querySelector("details[data-key=hour]").getBoundingClientRect().top)`
	before := eval[int](tb, `(() => {
  window.mark = document.querySelector("details[data-key=hour]");
  mark.open = true;
  mark.scrollIntoView({ block: "center" });
  mark.querySelector("summary").focus({ preventScroll: true });
  return `+place+`;
})()`)
	tb.until(`window.scrollY > 300`)
	began := time.Now()
	w.set(lostNode(t))
	tb.until(`document.querySelector("main").textContent.includes("nobody listens at its address")`)
	took := time.Since(began)
	t.Logf("the update took %v", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("the update took %v: two seconds are usual, and five with a busy machine", took)
	}
	for what, expression := range map[string]string{
		"the page is the same":  `window.mark === document.querySelector("details[data-key=hour]")`,
		"it is unfolded":        `mark.open`,
		"it has the focus":      `document.activeElement === mark.querySelector("summary")`,
		"its content is new":    `mark.textContent.includes("n2: from 11:56:00")`,
		"the title is new":      `document.title.startsWith("1 problem")`,
		"the page is live":      `document.getElementById("live").textContent === "Live"`,
		"the rows are in order": `[...document.querySelectorAll(".nodes tbody tr")].map((r) => r.querySelector("bdi").textContent).join() === "n1,n2,n3"`,
	} {
		if !eval[bool](tb, expression) {
			t.Errorf("this is not so: %s", what)
		}
	}
	// What is between the upper edge of the window and this place may have become a little longer. Far
	// more was added above the window.
	if after := eval[int](tb, place); after < before-60 || after > before+60 {
		t.Errorf("what the user looks at has moved from %d to %d", before, after)
	}
	// Back again, and to a state with fewer parts: the page is then as if it was loaded.
	for _, s := range []state{{cluster: states(t)["no cluster"].cluster}, expired(t)} {
		w.set(s)
		tb.until(`document.querySelector("main").textContent.includes("` + s.cluster.Remarks(time.Time{})[0].Text[:30] + `")`)
		other := open(t, b)
		other.show(url)
		fresh, err := json.Marshal(eval[string](other, `document.querySelector("main").outerHTML`))
		if err != nil {
			t.Fatal(err)
		}
		if differ := eval[[]string](tb, `(() => {
  const was = document.querySelector("main").cloneNode(true);
  was.querySelectorAll("details").forEach((d) => (d.open = false));
  const is = new DOMParser().parseFromString(`+string(fresh)+`, "text/html").querySelector("main");
  if (was.children.length !== is.children.length) return [was.children.length + " parts"];
  return [...was.children].filter((e, i) => !e.isEqualNode(is.children[i])).map((e) => e.outerHTML);
})()`); len(differ) > 0 {
			t.Errorf("these parts are not what they are when the page is loaded:\n%s", differ)
		}
	}
}

// When the node is gone the page says so, and that what it shows is old.
func TestGoneNode(t *testing.T) {
	b := browser(t)
	w, url := serve(t, healthy(t))
	tb := open(t, b)
	tb.show(url)
	tb.forgives.Store(true) // the browser logs each attempt
	w.stop()
	tb.until(`document.getElementById("live").dataset.state === "off"`)
	if got := eval[string](tb, `document.getElementById("live").textContent`); !strings.HasPrefix(got, "No updates from the node: this is how it was at ") {
		t.Errorf("it says %q", got)
	}
	if !eval[bool](tb, `document.querySelector("main").textContent.includes("Nothing to do")`) {
		t.Error("the content is gone")
	}
}
