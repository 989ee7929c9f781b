package ops

import (
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/rpc"
)

// HandleAdmin registers the requests that administer the cluster. Every node serves all of them,
// and asks the leader or another node where that is needed.
func (o *Operator) HandleAdmin(mux *http.ServeMux) {
	mux.HandleFunc("POST "+remote.CallStatus, rpc.Bytes(o.serveStatus))
	mux.HandleFunc("POST "+remote.CallDiagnose, rpc.Bytes(o.serveDiagnose))
	mux.HandleFunc("POST "+remote.CallEvents, rpc.Bytes(o.serveEvents))
	mux.HandleFunc("POST "+remote.CallRemove, rpc.Bytes(o.serveRemove))
	mux.HandleFunc("POST "+remote.CallVote, rpc.Bytes(o.serveVote))
	mux.HandleFunc("POST "+remote.CallTransfer, rpc.Bytes(o.serveTransfer))
	mux.HandleFunc("POST "+remote.CallMove, rpc.Bytes(o.serveMove))
	mux.HandleFunc("POST "+remote.CallDrain, rpc.Bytes(o.serveDrain))
	mux.HandleFunc("POST "+remote.CallRotate, rpc.Bytes(o.serveRotate))
	mux.HandleFunc("POST "+remote.CallEvict, rpc.Bytes(o.serveEvict))
	mux.HandleFunc("POST "+remote.CallUpgrade, rpc.Bytes(o.serveUpgrade))
	mux.HandleFunc("POST "+remote.CallBackup, o.serveBackup)
}

// HandleRecords registers the requests that read and write records.
func (o *Operator) HandleRecords(mux *http.ServeMux) {
	mux.HandleFunc("POST "+remote.CallList, rpc.Bytes(o.serveRecordList))
	mux.HandleFunc("POST "+remote.CallLoad, rpc.Bytes(o.serveRecordLoad))
	mux.HandleFunc("POST "+remote.CallPut, rpc.Bytes(o.serveRecordPut))
}
