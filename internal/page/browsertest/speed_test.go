package browsertest

import (
	"fmt"
	"testing"
)

// TestSpeed measures how fast the page is with few and with many certificates. The figures are
// those of a machine that may have other things to do, so they are told and not judged.
func TestSpeed(t *testing.T) {
	b := browser(t)
	for _, n := range []int{10, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			_, url := serve(t, many(t, n))
			for range 3 {
				tb := open(t, b)
				tb.show(url)
				got := eval[[]float64](tb, `(() => {
  const n = performance.getEntriesByType("navigation")[0];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return [n.responseStart - n.requestStart, n.responseEnd - n.requestStart, paint ? paint.startTime : 0, n.domComplete, n.decodedBodySize / 1024];
})()`)
				if got[0] <= 0 || got[4] <= 0 {
					t.Errorf("the figures are %v", got)
				}
				t.Logf("first byte %.0f ms, all bytes %.0f ms, first paint %.0f ms, complete %.0f ms, %.0f KiB", got[0], got[1], got[2], got[3], got[4])
			}
		})
	}
}
