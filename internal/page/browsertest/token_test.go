package browsertest

import (
	"strings"
	"testing"
)

// A browser that has been let in by a token sends it with the requests of the page's script too.
func TestToken(t *testing.T) {
	b := browser(t)
	const token = "0123456789abcdef"
	w, url := serveTo(t, token, healthy(t))
	tb := open(t, b)
	tb.show(strings.Replace(url, "://", "://me:"+token+"@", 1))
	w.set(expired(t))
	tb.until(`document.title.startsWith("1 problem")`)
}
