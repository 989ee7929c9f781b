package flotilla

import "net/http"

// handler serves the other nodes, which have proved that they know the secret.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+callHello, jsonCall(n.serveHello))
	mux.HandleFunc("POST "+callPromise, jsonCall(n.servePromise))
	mux.HandleFunc("POST "+callVoid, jsonCall(n.serveVoid))
	mux.HandleFunc("POST "+callProcess, bytesCall(n.serveProcess))
	mux.HandleFunc("POST "+callJoin, jsonCall(n.serveJoin))
	mux.HandleFunc("POST "+callLeave, jsonCall(n.serveLeave))
	mux.HandleFunc("POST "+callOpen, bytesCall(n.serveOpen))
	mux.HandleFunc("POST "+callEnd, bytesCall(n.serveEnd))
	mux.HandleFunc("POST "+callApply, bytesCall(n.serveApply))
	mux.HandleFunc("POST "+callConfirm, bytesCall(n.serveConfirm))
	mux.HandleFunc("POST "+callTerm, bytesCall(n.serveTerm))
	mux.HandleFunc("POST "+callLapsed, bytesCall(n.keeper.serveLapsed))
	mux.HandleFunc("POST "+callWill, bytesCall(n.serveBequest))
	n.handleRecords(mux)
	n.handleAdmin(mux)
	return n.forFresh(mux)
}
