package flotilla

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/healthauth"
	"github.com/flotilla-ha/flotilla/internal/page"
	"github.com/flotilla-ha/flotilla/internal/view"
	"github.com/flotilla-ha/flotilla/metric"
)

// Health returns a handler for balancers and operators. Serve it on a port of its own, never on the
// public one:
//
//	/livez    200 as long as the process can serve TLS, which does not need a quorum
//	/readyz   200 when the node should get requests; 503 before that, while it drains, and while
//	          an operator has drained it
//	/         the status page of the cluster, for people; it asks all nodes
//	/status   Status as JSON, and Events, the newest of this node
//	/metrics  Metrics, in the text format of Prometheus or in OpenMetrics
//
// A balancer that removes every failing node must check /livez: without a quorum no node is ready,
// but all of them can serve.
//
// All of it shows names and addresses, and no secrets. With Config.HealthToken, only who has the
// token gets an answer, except for /livez and /readyz. Those show nothing of the cluster then.
func (n *Node) Health() http.Handler {
	open, closed := http.NewServeMux(), http.NewServeMux()
	open.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		say(w, n.life.Open.Err() == nil, "live", "closed")
	})
	open.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		s := n.Status()
		no := "not ready"
		switch {
		case s.Drained:
			no = "drained"
		case s.Draining:
			no = "draining"
		case s.Err != "" && n.cfg.token() != "":
			no = "failed; /status says why"
		case s.Err != "":
			no = s.Err
		}
		say(w, s.Ready && !s.Draining, "ready", no)
	})
	open.Handle("/", healthauth.Require(n.cfg.token(), closed))
	closed.Handle("/", page.New(page.Config{
		Look:    func(ctx context.Context) (*view.Cluster, error) { return view.New(n.ops.Status(ctx)) },
		Events:  func(ctx context.Context) []event.Event { return n.ops.Events(ctx) },
		Changed: n.observer.Events.Added,
		Self:    func() string { return n.self.ID },
		Closed:  n.life.Open.Done(),
		Now:     n.clocks.Now,
	}))
	closed.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "\t")
		e.Encode(struct {
			Status
			Events []event.Event
		}{n.Status(), n.observer.Events.After(0)})
	})
	closed.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		format := metric.Negotiate(strings.Join(r.Header.Values("Accept"), ","))
		w.Header().Set("Content-Type", format.ContentType())
		metric.Write(w, format, n.Metrics())
	})
	return open
}

// say answers yes with 200, or no with 503.
func say(w http.ResponseWriter, ok bool, yes, no string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		yes = no
	}
	w.Write([]byte(yes + "\n"))
}
