package browsertest

import (
	"context"
	"flag"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/healthauth"
	"github.com/flotilla-ha/flotilla/internal/page"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/internal/view/viewtest"
)

var pictures = flag.String("pictures", "", "the directory in which TestPictures writes")

// world is a cluster that a page shows and a test changes.
type world struct {
	mu      sync.Mutex
	now     state
	changed chan struct{}
	stop    func() // the node
}

func (w *world) set(s state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = s
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) get() (state, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now, w.changed
}

// serve serves the page of a cluster, with the timeouts of the health port.
func serve(t *testing.T, s state) (w *world, url string) { t.Helper(); return serveTo(t, "", s) }

// serveTo serves the page to those who have a token. Without one, it serves it to all.
func serveTo(t *testing.T, token string, s state) (w *world, url string) {
	t.Helper()
	w = &world{now: s, changed: make(chan struct{})}
	srv := httptest.NewUnstartedServer(healthauth.Require(token, page.New(page.Config{
		Look:    func(context.Context) (*view.Cluster, error) { s, _ := w.get(); return s.cluster, nil },
		Events:  func(context.Context) []event.Event { s, _ := w.get(); return s.events },
		Changed: func() <-chan struct{} { _, changed := w.get(); return changed },
		Self:    func() string { return viewtest.IDOne },
		Now:     viewtest.Today,
	})))
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 10*time.Second, 10*time.Second
	srv.Start()
	w.stop = sync.OnceFunc(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	t.Cleanup(w.stop)
	return w, srv.URL
}

// browser starts Chromium for a test and its subtests.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium here: ", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal("chromium does not start: ", err)
	}
	return ctx
}

// tab is a tab of the browser.
type tab struct {
	t        *testing.T
	ctx      context.Context
	forgives atomic.Bool // what the console says
}

// open opens a tab. What the console says is an error of the test: it says what a policy has
// refused, too.
func open(t *testing.T, browser context.Context) *tab {
	t.Helper()
	tb := &tab{t: t}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithListener(func(ev any) {
		if tb.forgives.Load() {
			return
		}
		switch ev := ev.(type) {
		case *runtime.EventConsoleAPICalled:
			var said []string
			for _, a := range ev.Args {
				said = append(said, string(a.Value))
			}
			t.Errorf("the console: %s: %s", ev.Type, strings.Join(said, " "))
		case *runtime.EventExceptionThrown:
			t.Errorf("the script fails: %s", ev.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			t.Errorf("the browser logs: %s: %s", ev.Entry.Level, ev.Entry.Text)
		}
	}))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // with no timeout: the tab would end with it
		t.Fatal(err)
	}
	tb.ctx = ctx
	tb.do(call(log.Enable, cdp.Empty{}), call(runtime.Enable, cdp.Empty{}))
	return tb
}

// call is a command of the protocol of the browser.
func call[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, c, params)
		return chromedp.Void{}, err
	}
}

// run returns what an action returns.
func run[T any](tb *tab, action chromedp.Action[T]) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, time.Minute)
	defer cancel()
	out, err := chromedp.Run(ctx, action)
	if err != nil {
		tb.t.Fatal(err)
	}
	return out
}

func (tb *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	for _, a := range actions {
		run(tb, a)
	}
}

// show opens an address, and waits until the page is live.
func (tb *tab) show(url string) {
	tb.t.Helper()
	tb.do(chromedp.Navigate(url))
	tb.until(`document.getElementById("live").dataset.state === "on"`)
}

// size sets width and height of the window.
func (tb *tab) size(width, height int64) {
	tb.t.Helper()
	tb.do(call(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500,
	}))
}

// scheme makes the user prefer "light" or "dark".
func (tb *tab) scheme(name string) {
	tb.t.Helper()
	tb.do(call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	}))
}

// eval returns what an expression of JavaScript is.
func eval[T any](tb *tab, expression string) T {
	tb.t.Helper()
	return run(tb, chromedp.Evaluate[T](expression))
}

// until waits until an expression of JavaScript is true.
func (tb *tab) until(expression string) {
	tb.t.Helper()
	poll := chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(waits), chromedp.WithPollingInterval(20*time.Millisecond))
	if _, err := chromedp.Run(tb.ctx, poll); err != nil {
		tb.t.Fatalf("after %v this is not true: %s: %v", waits, expression, err)
	}
}
