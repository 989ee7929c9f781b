package flotilla

import (
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/rpc"
)

// handler serves the requests of other nodes, which have proved that they know the secret.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+rpc.Hello, rpc.JSON(n.members.ServeHello))
	mux.HandleFunc("POST "+rpc.Promise, rpc.JSON(n.members.ServePromise))
	mux.HandleFunc("POST "+rpc.Void, rpc.JSON(n.members.ServeVoid))
	mux.HandleFunc("POST "+rpc.Process, rpc.Bytes(n.members.ServeProcess))
	mux.HandleFunc("POST "+rpc.Join, rpc.JSON(n.members.ServeJoin))
	mux.HandleFunc("POST "+rpc.Leave, rpc.JSON(n.members.ServeLeave))
	mux.HandleFunc("POST "+rpc.OpenSession, rpc.Bytes(n.members.ServeOpen))
	mux.HandleFunc("POST "+rpc.EndSession, rpc.Bytes(n.members.ServeEnd))
	mux.HandleFunc("POST "+rpc.Apply, rpc.Bytes(n.replica.ServeApply))
	mux.HandleFunc("POST "+rpc.Confirm, rpc.Bytes(n.replica.ServeConfirm))
	mux.HandleFunc("POST "+rpc.Term, rpc.Bytes(n.replica.ServeTerm))
	mux.HandleFunc("POST "+rpc.Expired, rpc.Bytes(n.keeper.ServeExpired))
	mux.HandleFunc("POST "+rpc.DeathNotice, rpc.Bytes(n.members.ServeDeathNotice))
	n.ops.HandleRecords(mux)
	n.ops.HandleAdmin(mux)
	return n.members.OnlyNewest(mux)
}
