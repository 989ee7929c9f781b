package flotilla

import (
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/limits"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/turns"
)

// handler serves the requests of other nodes, which have proved that they know the secret.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	n.members.Handle(mux)
	mux.HandleFunc("POST "+rpc.Apply, rpc.Bytes(n.replica.ServeApply))
	mux.HandleFunc("POST "+rpc.Confirm, rpc.Bytes(n.replica.ServeConfirm))
	mux.HandleFunc("POST "+rpc.Term, rpc.Bytes(n.replica.ServeTerm))
	mux.HandleFunc("POST "+rpc.Expired, rpc.Bytes(n.leases.ServeExpired))
	mux.HandleFunc("POST "+rpc.Turn, rpc.Serve(turns.DecodeRequest, n.records.turns.Serve))
	mux.HandleFunc("POST "+rpc.Limit, rpc.Serve(limits.DecodeRequest, n.records.limits.Serve))
	n.ops.HandleRecords(mux)
	n.ops.HandleAdmin(mux)
	return n.members.OnlyNewest(mux)
}
