package browsertest

import (
	"fmt"
	"testing"
)

// contrasts is a script that returns the texts of the page with too little contrast.
const contrasts = `(() => {
  const parse = (c) => {
    const n = c.match(/[\d.]+/g).map(Number);
    return { rgb: n.slice(0, 3), alpha: n.length > 3 ? n[3] : 1 };
  };
  const over = (top, below) => top.rgb.map((v, i) => v * top.alpha + below[i] * (1 - top.alpha));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own.alpha === 1 ? own.rgb : over(own, ground(element.parentElement));
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (light + 0.05) / (dark + 0.05);
  };
  const low = [];
  let texts = 0;
  const check = (what, colour, below) => {
    texts++;
    const r = ratio(over(parse(colour), below), below);
    if (r < 4.5) low.push(r.toFixed(2) + " " + what + " " + colour + " on " + below);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const parent = walker.currentNode.parentElement;
    if (!text || parent.closest("script, noscript, title, .unseen") || !parent.getClientRects().length) continue;
    const style = getComputedStyle(parent);
    if (parent instanceof SVGElement) check(text.slice(0, 40), style.fill, parse(getComputedStyle(parent.parentElement.querySelector("rect")).fill).rgb);
    else check(text.slice(0, 40), style.color, ground(parent));
  }
  for (const cell of document.querySelectorAll("td[data-label]")) {
    const label = getComputedStyle(cell, "::before");
    if (label.content !== "none") check("label " + cell.dataset.label, label.color, ground(cell));
  }
  return { texts, low };
})()`

// At each width and in each state the page fits its window, and each text has enough contrast. The
// console stays silent.
func TestLayout(t *testing.T) {
	b := browser(t)
	for name, s := range states(t) {
		t.Run(name, func(t *testing.T) {
			_, url := serve(t, s)
			tb := open(t, b)
			tb.show(url)
			// What is folded is looked at too.
			eval[bool](tb, `document.querySelectorAll("details").forEach((d) => (d.open = true)), true`)
			for _, width := range []int64{360, 800, 1440} {
				tb.size(width, 900)
				if got := eval[[]int](tb, `[document.documentElement.scrollWidth, document.documentElement.clientWidth]`); got[0] > got[1] {
					t.Errorf("at %d the page is %d wide, its window %d", width, got[0], got[1])
				}
				wide := eval[[]string](tb, `[...document.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.ariaLabel + " " + e.scrollWidth)`)
				if len(wide) > 0 && name != "hostile" {
					t.Errorf("at %d one has to scroll: %v", width, wide)
				}
				for _, scheme := range []string{"light", "dark"} {
					tb.scheme(scheme)
					got := eval[struct {
						Texts int      `json:"texts"`
						Low   []string `json:"low"`
					}](tb, contrasts)
					if len(got.Low) > 0 || got.Texts < 20 {
						t.Errorf("at %d, %s: of %d texts these have too little contrast: %v", width, scheme, got.Texts, fmt.Sprintf("%.600v", got.Low))
					}
				}
			}
		})
	}
}
