package flotilla

import (
	"encoding/json"
	"net/http"
)

// Health returns a handler for balancers and operators. Serve it on a port of its own, never on the
// public one:
//
//	/livez   200 as long as the process can serve TLS, which does not need a quorum
//	/readyz  200 when the node should get requests; 503 before that, while it drains, and while
//	         an operator has drained it
//	/status  Status as JSON
//
// A balancer that removes every failing node must check /livez: without a quorum no node is ready,
// but all of them can serve.
func (n *Node) Health() http.Handler {
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, ok bool, yes, no string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
			yes = no
		}
		w.Write([]byte(yes + "\n"))
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		say(w, n.life.Open.Err() == nil, "live", "closed")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		s := n.Status()
		no := "not ready"
		switch {
		case s.Drained:
			no = "drained"
		case s.Draining:
			no = "draining"
		case s.Err != "":
			no = s.Err
		}
		say(w, s.Ready && !s.Draining, "ready", no)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "\t")
		e.Encode(n.Status())
	})
	return mux
}
