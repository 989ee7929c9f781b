package flotilla

import "net/http"

// handler serves the other nodes, which have proved that they know the secret.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+callHello, jsonCall(n.members.serveHello))
	mux.HandleFunc("POST "+callPromise, jsonCall(n.members.servePromise))
	mux.HandleFunc("POST "+callVoid, jsonCall(n.members.serveVoid))
	mux.HandleFunc("POST "+callProcess, bytesCall(n.members.serveProcess))
	mux.HandleFunc("POST "+callJoin, jsonCall(n.members.serveJoin))
	mux.HandleFunc("POST "+callLeave, jsonCall(n.members.serveLeave))
	mux.HandleFunc("POST "+callOpen, bytesCall(n.members.serveOpen))
	mux.HandleFunc("POST "+callEnd, bytesCall(n.members.serveEnd))
	mux.HandleFunc("POST "+callApply, bytesCall(n.replica.serveApply))
	mux.HandleFunc("POST "+callConfirm, bytesCall(n.replica.serveConfirm))
	mux.HandleFunc("POST "+callTerm, bytesCall(n.replica.serveTerm))
	mux.HandleFunc("POST "+callLapsed, bytesCall(n.keeper.serveLapsed))
	mux.HandleFunc("POST "+callWill, bytesCall(n.members.serveBequest))
	n.ops.handleRecords(mux)
	n.ops.handleAdmin(mux)
	return n.members.forFresh(mux)
}
