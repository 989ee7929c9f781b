package membership

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Config is what a membership needs of the node around it. All fields are set, but for those that
// say otherwise.
type Config struct {
	Peers      func(context.Context) ([]string, error) // finds addresses of nodes; nil: there are none
	Expect     int                                     // nodes of a new cluster; <= 1: this one alone
	RemoveDead time.Duration                           // until a dead member is removed; <= 0: never
	Secrets    *secrets.Set                            // this node's
	Supports   uint64                                  // the newest cluster version of this program
	Timing     timing.Timing
	Log        *slog.Logger
	Life       *lifecycle.Life
	Self       *self.Self
	Ident      *IdentityFile
	Store      *applied.Store
	Table      *peers.Table
	Replica    *replica.Replica
	Leases     *lease.Manager
	Up         Up
}

// Up is what a membership asks of the parts above it.
type Up struct {
	OwnSettings func() Settings           // what this node has configured
	StillSeen   func(session uint64) bool // something public that a session held can still be seen
}

// Membership leads a node into its cluster and keeps it there, and decides which nodes are in one
// cluster with it. It consists of parts with a job each. Make one with New. Its methods are safe
// for concurrent use.
type Membership struct {
	Ident *IdentityFile // what the node must not forget
	*Greetings
	*Copies
	*Entry
	*Sessions
	*Configurator
	*Reach
}

// New returns the membership of a node. It does nothing before its methods are called.
func New(c Config) *Membership {
	m := &Membership{Ident: c.Ident}
	m.Copies = &Copies{
		timing: c.Timing, log: c.Log, self: c.Self, ident: c.Ident, store: c.Store, table: c.Table, replica: c.Replica,
	}
	m.Greetings = &Greetings{
		discover: c.Peers, secrets: c.Secrets, settings: c.Up.OwnSettings, supports: c.Supports, log: c.Log, life: c.Life, self: c.Self, ident: c.Ident,
		store: c.Store, table: c.Table, replica: c.Replica, leases: c.Leases, copies: m.Copies,
	}
	m.Entry = &Entry{
		timing: c.Timing, log: c.Log, life: c.Life, self: c.Self, ident: c.Ident, store: c.Store, table: c.Table,
		replica: c.Replica, greetings: m.Greetings,
		formation: newFormation(c.Expect, c.Log, c.Self, c.Ident, c.Table, formationCalls{m.Greetings, c.Replica.Port}),
	}
	m.Sessions = &Sessions{
		timing: c.Timing, log: c.Log, life: c.Life, self: c.Self, ident: c.Ident, store: c.Store, replica: c.Replica,
		leases: c.Leases, copies: m.Copies, greetings: m.Greetings, stillSeen: c.Up.StillSeen,
	}
	m.Configurator = &Configurator{
		removeDead: c.RemoveDead, log: c.Log, life: c.Life, self: c.Self, ident: c.Ident, store: c.Store, table: c.Table,
		replica: c.Replica, copies: m.Copies, greetings: m.Greetings, settings: c.Up.OwnSettings,
	}
	m.Reach = &Reach{life: c.Life, self: c.Self, table: c.Table, replica: c.Replica, greetings: m.Greetings}
	return m
}

// Handle serves the calls of other nodes that are about membership.
func (m *Membership) Handle(mux *http.ServeMux) {
	mux.HandleFunc("POST "+rpc.Hello, rpc.Serve(DecodeGreeting, m.ServeHello))
	mux.HandleFunc("POST "+rpc.Promise, rpc.Serve(DecodeProposal, m.formation.servePromise))
	mux.HandleFunc("POST "+rpc.Void, rpc.Serve(DecodeProposal, m.formation.serveVoid))
	mux.HandleFunc("POST "+rpc.Stale, rpc.Serve(DecodeStale, m.serveStale))
	mux.HandleFunc("POST "+rpc.Process, rpc.Serve(rpc.DecodeEmpty, m.serveProcess))
	mux.HandleFunc("POST "+rpc.Join, rpc.Serve(DecodeGreeting, m.ServeJoin))
	mux.HandleFunc("POST "+rpc.Leave, rpc.Serve(DecodeLeaving, m.ServeLeave))
	mux.HandleFunc("POST "+rpc.OpenSession, rpc.Bytes(m.ServeOpen))
	mux.HandleFunc("POST "+rpc.EndSession, rpc.Bytes(m.ServeEnd))
	mux.HandleFunc("POST "+rpc.DeathNotice, rpc.Serve(DecodeDeathNotice, m.serveDeathNotice))
}

// OnlyNewest makes a handler that refuses evicted nodes, and the processes of a node whose place
// another process has taken. They may still ask why.
func (m *Membership) OnlyNewest(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		process := wire.Incarnation(r.Context())
		if m.Greetings.store.State().Refuses(wire.Peer(r.Context())) && r.URL.Path != rpc.Hello {
			m.Greetings.replica.Port.Meters.Rejected.Inc(wire.RejectedEvicted)
			http.Error(w, "the cluster has evicted this node", http.StatusForbidden)
			return
		}
		if process != "" && r.URL.Path != rpc.Hello && r.URL.Path != rpc.Process {
			if err := m.IsNewest(wire.Peer(r.Context()), process); err != nil {
				m.Greetings.replica.Port.Meters.Rejected.Inc(wire.RejectedProcess)
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
