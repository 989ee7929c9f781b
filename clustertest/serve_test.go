package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// skipShort skips a test that takes more than about a tenth of a second.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
}

// namesItself returns a handler that answers with the name of its node.
func namesItself(_ int, n *flotilla.Node) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, n.Status().Name) })
}

// get returns the body of an answer.
func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	body, err := tryGet(client, url)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func tryGet(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

// answers returns how many of so many requests, each on a connection of its own, each node answers.
func answers(t *testing.T, client *http.Client, requests int) map[string]int {
	t.Helper()
	got := make(map[string]int)
	for range requests {
		got[get(t, client, "https://api.test/")]++
		client.CloseIdleConnections()
	}
	return got
}

// A client reaches every node in turn, and the others when one is dead. A node that is restarted
// serves again, and so does one that is added.
func TestServe(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Serve(namesItself)
		c.Settle()
		client := c.Client()
		want := func(want map[string]int) {
			t.Helper()
			if diff := cmp.Diff(want, answers(t, client, 6)); diff != "" {
				t.Errorf("who answers (-want +got):\n%s", diff)
			}
		}
		want(map[string]int{"n0": 2, "n1": 2, "n2": 2})
		if got := get(t, client, "http://api.test/"); !strings.HasPrefix(got, "n") { // by a redirect
			t.Errorf("over http: %q", got)
		}
		client.CloseIdleConnections() // a request on one to a node that dies would be lost with it

		dead := c.Leader()
		c.Kill(dead)
		answered := answers(t, client, 6)
		if answered[fmt.Sprintf("n%d", dead)] != 0 || len(answered) != 2 {
			t.Errorf("n%d is dead, and these have answered: %v", dead, answered)
		}
		if _, err := tryGet(c.ClientOf(dead), "https://api.test/"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a dead node: %v", err)
		}

		c.Restart(dead)
		added := c.Add(nil)
		c.Settle()
		for _, i := range []int{dead, added} {
			if got, want := get(t, c.ClientOf(i), "https://api.test/"), fmt.Sprintf("n%d", i); got != want {
				t.Errorf("%s answers for %s", got, want)
			}
		}
	})
}

// Domains are those of the user. The nodes have no certificate for others.
func TestServeDomains(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Serve(namesItself, "www.example", "shop.example")
		c.Settle()
		client := c.Client()
		for _, url := range []string{"https://www.example/", "https://shop.example/"} {
			if got := get(t, client, url); got != "n0" {
				t.Errorf("%s: %q", url, got)
			}
		}
		if _, err := tryGet(client, "https://api.test/"); err == nil || !strings.Contains(err.Error(), "tls: ") {
			t.Errorf("a name that is not served: %v", err)
		}
	})
}

// A program that opens its node itself, uses it beside its handler, and shuts it down.
func TestRunOpen(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		holders := 0
		c := clustertest.Run(t, 3, func(ctx context.Context, cfg flotilla.Config) error {
			n, err := flotilla.Open(ctx, cfg)
			if err != nil {
				return err
			}
			held := make(chan error, 1)
			go func() {
				held <- n.Hold(ctx, flotilla.Role{Name: "job"}, func(ctx context.Context, _ flotilla.Tenure) error {
					mu.Lock()
					holders++
					mu.Unlock()
					<-ctx.Done()
					return nil
				})
			}()
			err = n.Serve(ctx, namesItself(0, n), "api.test")
			<-held
			return errors.Join(err, n.Shutdown(context.WithoutCancel(ctx)))
		})
		c.Settle()
		if got := answers(t, c.Client(), 3); len(got) != 3 {
			t.Errorf("these have answered: %v", got)
		}
		synctest.Wait()
		mu.Lock()
		if holders != 1 {
			t.Errorf("%d programs hold the role", holders)
		}
		mu.Unlock()
		c.Kill(c.Leader())
		c.Settle()
		if got := answers(t, c.Client(), 4); len(got) != 2 {
			t.Errorf("these have answered: %v", got)
		}
	})
}

// With nodes on other machines than its clients', a client waits for three seconds for one that
// does not answer, and then takes the next.
func TestClientLeavesASilentNode(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Serve(namesItself)
		c.Settle()
		client := c.Client()
		get(t, client, "https://api.test/") // of n0
		client.CloseIdleConnections()
		c.Isolate(1)
		began := time.Now()
		if got := get(t, client, "https://api.test/"); got != "n2" {
			t.Errorf("%s answers", got)
		}
		if took := time.Since(began).Round(time.Second); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		c.Heal()
		c.Settle()
	})
}
