package flotilla

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// With a token, the health port tells only those who have it about the cluster. Checks of balancers
// need none.
func TestHealthToken(t *testing.T) {
	const token = "0123456789abcdef"
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), func(c *Config) { c.HealthToken = token })
		if nodes[0].cfg.HealthToken != "" {
			t.Error("who prints a Node prints the token")
		}
		h := nodes[0].Health()
		ask := func(method, path string, change func(*http.Request)) (int, string) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // updates do not end by themselves
			defer cancel()
			r, w := httptest.NewRequestWithContext(ctx, method, "http://a", nil), httptest.NewRecorder()
			r.URL.Path = path
			change(r)
			h.ServeHTTP(w, r)
			return w.Code, w.Body.String()
		}
		callers := []struct {
			name   string
			change func(*http.Request)
			in     bool
		}{
			{"nobody", func(*http.Request) {}, false},
			{"a wrong token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"0") }, false},
			{"Prometheus", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, true},
			{"a browser", func(r *http.Request) { r.SetBasicAuth("me", token) }, true},
		}
		type answer struct{ out, in int }
		got := make(map[string]answer)
		for _, caller := range callers {
			for _, what := range []string{
				"GET /livez", "GET /readyz", "GET /", "GET /page/updates", "GET /status", "GET /metrics", "GET /nothing", "GET /livez/x", "GET /readyz/", "POST /status", "POST /livez",
			} {
				method, path, _ := strings.Cut(what, " ")
				code, body := ask(method, path, caller.change)
				a := got[what]
				if caller.in {
					a.in = code
				} else if a.out = code; code == http.StatusUnauthorized && (!strings.Contains(body, "FLOTILLA_HEALTH_TOKEN") || strings.Contains(body, token)) {
					t.Errorf("%s as %s: %s", what, caller.name, body)
				}
				got[what] = a
			}
		}
		want := map[string]answer{
			"GET /livez": {200, 200}, "GET /readyz": {200, 200}, "GET /": {401, 200}, "GET /page/updates": {401, 200}, "GET /status": {401, 200}, "GET /metrics": {401, 200},
			"GET /nothing": {401, 404}, "GET /livez/x": {401, 404}, "GET /readyz/": {401, 404}, "POST /status": {401, 404}, "POST /livez": {401, 404},
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
			t.Errorf("statuses without and with the token (-want +got):\n%s", diff)
		}
		// Others lead there by a redirect at most.
		for _, path := range []string{"//status", "/x/../status", "/livez/../status"} {
			if code, body := ask("GET", path, func(*http.Request) {}); code == 200 || strings.Contains(body, nodes[0].self.ID) {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
	})
}

// Who has no token does not learn why a node has failed.
func TestHealthTokenHidesTheReason(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		for token, want := range map[string]string{"": "the disk of db7 is gone", "0123456789abcdef": "failed; /status says why\n"} {
			nodes := trio(t, simnet.New(), func(c *Config) { c.HealthToken = token })
			nodes[0].replica.Fail(errors.New("the disk of db7 is gone"))
			synctest.Wait()
			w := httptest.NewRecorder()
			nodes[0].Health().ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
			body, err := io.ReadAll(w.Body)
			if w.Code != http.StatusServiceUnavailable || !strings.Contains(string(body), want) || err != nil {
				t.Errorf("with the token %q: %d %s, %v", token, w.Code, body, err)
			}
		}
	})
}
