package ops

import (
	"io"
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/remote"
)

// serveBackup answers with a backup as it is made. A node that fails in the middle of it cuts the
// answer off, and the caller notices.
func (o *Operator) serveBackup(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		_, err = remote.DecodeBackupRequest(body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := &answered{Writer: w}
	if err = o.cfg.Up.Backup(r.Context(), out); err == nil {
		return
	}
	if out.begun {
		o.cfg.Log.Warn("a backup was cut off", "err", err)
		panic(http.ErrAbortHandler)
	}
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

// answered notes that an answer has begun, and can be no error any more.
type answered struct {
	io.Writer
	begun bool
}

func (a *answered) Write(p []byte) (int, error) {
	a.begun = true
	return a.Writer.Write(p)
}
