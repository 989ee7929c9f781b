package page

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
)

// world is what a page shows.
type world struct {
	mu      sync.Mutex
	cluster *view.Cluster
	err     error
	slow    time.Duration // a look takes so long
	looks   int
	changed chan struct{}
	closed  chan struct{}
	page    *Page
}

func newWorld(t *testing.T) *world {
	w := &world{cluster: viewtest.Clusters(t)["well"], changed: make(chan struct{}), closed: make(chan struct{})}
	w.page = New(Config{
		Look: w.look, Events: func(context.Context) []event.Event { return nil },
		Changed: func() <-chan struct{} {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.changed
		},
		Self: func() string { return viewtest.IDOne }, Closed: w.closed, Now: viewtest.Today,
	})
	return w
}

func (w *world) look(ctx context.Context) (*view.Cluster, error) {
	w.mu.Lock()
	w.looks++
	c, err, slow := w.cluster, w.err, w.slow
	w.mu.Unlock()
	if slow > 0 {
		timer := time.NewTimer(slow)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return c, err
}

func (w *world) looked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looks
}

// set changes the cluster, and says so.
func (w *world) set(c *view.Cluster) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cluster = c
	close(w.changed)
	w.changed = make(chan struct{})
}

// watcher is a client that gets updates.
type watcher struct {
	mu        sync.Mutex
	header    http.Header
	status    int
	body      strings.Builder
	deadlines []time.Time
	broken    error // of a write
}

func (w *watcher) Header() http.Header { return w.header }

func (w *watcher) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status = status
}

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return 0, w.broken
	}
	return w.body.Write(b)
}

func (w *watcher) Flush() {}

func (w *watcher) SetWriteDeadline(at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadlines = append(w.deadlines, at)
	return nil
}

// updates returns how many it has got.
func (w *watcher) updates() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.body.String(), "data: ")
}

// watch gets updates until the function that it returns is called, which waits for the end.
func (w *world) watch(t *testing.T) (*watcher, func()) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &watcher{header: make(http.Header), status: http.StatusOK}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.page.ServeHTTP(out, httptest.NewRequest("GET", "/page/updates", nil).WithContext(ctx))
	}()
	return out, func() { cancel(); <-done }
}

// inBubble runs a test of a world whose time is that of a bubble.
func inBubble(t *testing.T, f func(*testing.T, *world)) {
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

// An update comes at once, after a change, and at the latest after ten seconds. Two are a second
// apart at least.
func TestUpdates(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		out, end := w.watch(t)
		defer end()
		lost := viewtest.Clusters(t)["lost"]
		for i, step := range []struct {
			after  time.Duration
			change bool
			want   int
		}{
			{0, false, 1},
			{9 * time.Second, false, 1},
			{1100 * time.Millisecond, false, 2},
			{0, true, 2}, // at 10.1 s, a moment after the last
			{500 * time.Millisecond, true, 2},
			{500 * time.Millisecond, true, 3},
			{time.Second, false, 4},
			{5 * time.Second, false, 4},
			{0, true, 5}, // the last is long ago
		} {
			time.Sleep(step.after)
			if step.change {
				w.set(lost)
			}
			synctest.Wait()
			if got := out.updates(); got != step.want {
				t.Fatalf("step %d: %d updates, want %d", i, got, step.want)
			}
		}
		content := out.body.String()
		last := content[strings.LastIndex(content, "data: ")+6:]
		var update struct{ Title, Main string }
		if err := json.Unmarshal([]byte(last), &update); err != nil || !strings.HasSuffix(last, "}\n\n") {
			t.Fatalf("%v: %q", err, last)
		}
		if !strings.HasPrefix(update.Title, "4 problems") || !strings.Contains(update.Main, "nobody listens at its address") {
			t.Errorf("it says %s", update.Title)
		}
		if h := out.header; h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("the header is %v", h)
		}
	})
}

// All viewers share one look at a time, and nobody looks when nobody watches.
func TestLooksAreShared(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.slow = 600 * time.Millisecond
		var ends []func()
		var all []*watcher
		for range 8 {
			out, end := w.watch(t)
			all, ends = append(all, out), append(ends, end)
		}
		doc := httptest.NewRecorder()
		w.page.ServeHTTP(doc, httptest.NewRequest("GET", "/", nil))
		synctest.Wait()
		if got := w.looked(); got != 1 || doc.Code != 200 {
			t.Errorf("%d looks, status %d", got, doc.Code)
		}
		time.Sleep(30 * time.Second)
		if got := w.looked(); got != 4 { // at 0, 10, 20 and 30 s
			t.Errorf("%d looks in 30 s", got)
		}
		time.Sleep(time.Second)
		for i, out := range all {
			if got := out.updates(); got != 4 {
				t.Errorf("viewer %d has %d updates", i, got)
			}
		}
		for _, end := range ends {
			end()
		}
		before := w.looked()
		w.set(viewtest.Clusters(t)["lost"])
		time.Sleep(time.Hour)
		if got := w.looked(); got != before {
			t.Errorf("%d looks while nobody watches", got-before)
		}
	})
}

// If the viewer whose request looks leaves, another one looks.
func TestLookerLeaves(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.slow = time.Second
		_, endFirst := w.watch(t)
		synctest.Wait()
		second, endSecond := w.watch(t)
		defer endSecond()
		time.Sleep(500 * time.Millisecond)
		endFirst()
		time.Sleep(1100 * time.Millisecond)
		if got := second.updates(); got != 1 || w.looked() != 2 {
			t.Errorf("%d updates, %d looks", got, w.looked())
		}
	})
}

// A failed look is shown, in words.
func TestFailedLook(t *testing.T) {
	w := newWorld(t)
	w.err = errors.New("the status of n2 is malformed")
	doc := httptest.NewRecorder()
	w.page.ServeHTTP(doc, httptest.NewRequest("GET", "/", nil))
	if got := doc.Body.String(); doc.Code != 200 || !strings.Contains(got, "the status of n2 is malformed") || !strings.Contains(got, "1 thing to do") {
		t.Errorf("%d: %s", doc.Code, got)
	}
}

// A viewer that is one too many is told so. When one leaves there is room.
func TestViewersAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var ends []func()
		for range maxViewers {
			_, end := w.watch(t)
			ends = append(ends, end)
		}
		synctest.Wait()
		out, end := w.watch(t)
		synctest.Wait()
		end()
		if out.status != http.StatusServiceUnavailable || out.header.Get("Retry-After") != "10" || !strings.Contains(out.body.String(), "too many") {
			t.Errorf("%d %v: %s", out.status, out.header, &out.body)
		}
		ends[0]()
		out, ends[0] = w.watch(t)
		synctest.Wait()
		if out.updates() != 1 {
			t.Errorf("after one has left: %d", out.status)
		}
		for _, end := range ends {
			end()
		}
	})
}

// Updates end with the node, and when the client does not take them.
func TestUpdatesEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		broken := &watcher{header: make(http.Header), broken: os.ErrDeadlineExceeded}
		w.page.ServeHTTP(broken, httptest.NewRequest("GET", "/page/updates", nil))
		if want := time.Now().Add(slowest); len(broken.deadlines) != 1 || !broken.deadlines[0].Equal(want) {
			t.Errorf("the deadlines are %v, want %v", broken.deadlines, want)
		}
		out, end := w.watch(t)
		defer end()
		time.Sleep(25 * time.Second)
		synctest.Wait()
		out.mu.Lock()
		if got := len(out.deadlines); got != 4 { // the first piece is no update
			t.Errorf("%d deadlines", got)
		}
		out.mu.Unlock()
		close(w.closed)
		synctest.Wait()
		for range maxViewers {
			if !w.page.viewers.enter() {
				t.Fatal("a place is not free")
			}
		}
	})
}

// A page of another site gets no updates.
func TestOtherSites(t *testing.T) {
	w := newWorld(t)
	for _, site := range []string{"cross-site", "same-site"} {
		t.Run(site, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/page/updates", nil)
			r.Header.Set("Sec-Fetch-Site", site)
			out := httptest.NewRecorder()
			w.page.ServeHTTP(out, r)
			if out.Code != http.StatusForbidden || w.looked() != 0 {
				t.Errorf("%d: %s", out.Code, out.Body)
			}
		})
	}
}

// The policy admits the one style and the one script of the document, and nothing from elsewhere.
func TestPolicy(t *testing.T) {
	w := newWorld(t)
	out := httptest.NewRecorder()
	w.page.ServeHTTP(out, httptest.NewRequest("GET", "/", nil))
	content := out.Body.String()
	between := func(begin, end string) string {
		_, rest, _ := strings.Cut(content, begin)
		inner, _, _ := strings.Cut(rest, end)
		return inner
	}
	want := fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		hash(between("<style>", "</style>")), hash(between("<script>", "</script>")))
	for name, want := range map[string]string{
		"Content-Security-Policy": want, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Content-Type": "text/html; charset=utf-8",
	} {
		if got := out.Header().Get(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if strings.Contains(strings.ReplaceAll(content, "http://www.w3.org/2000/svg", ""), "//www") || strings.Contains(content, "https:") {
		t.Error("the document names another site")
	}
}

func TestPaths(t *testing.T) {
	w := newWorld(t)
	for request, want := range map[string]int{"GET /": 200, "HEAD /": 200, "POST /": 405, "GET /other": 404, "POST /page/updates": 405} {
		t.Run(request, func(t *testing.T) {
			method, path, _ := strings.Cut(request, " ")
			out := httptest.NewRecorder()
			w.page.ServeHTTP(out, httptest.NewRequest(method, path, nil))
			if out.Code != want {
				t.Errorf("%d, want %d", out.Code, want)
			}
		})
	}
}

// The timeouts of the server, which are for short answers, do not end updates.
func TestUpdatesOutliveTheTimeoutsOfTheServer(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewUnstartedServer(w.page)
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	srv.Start()
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/page/updates", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for n := 0; n < 3; {
		if !lines.Scan() {
			t.Fatalf("it ends after %d updates: %v", n, lines.Err())
		}
		if strings.HasPrefix(lines.Text(), "data: ") {
			n++
			w.set(viewtest.Clusters(t)["lost"]) // the next comes a second later
		}
	}
}
