package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/flotilla-ha/flotilla"
)

const maxNote = 64 << 10 // bytes

// serve runs the server, which is a node of a cluster, until ctx ends.
func serve(ctx context.Context, cfg flotilla.Config, domains []string) error {
	if len(domains) == 0 {
		cfg.TLS.Private = true // browsers do not trust it
		domains = []string{"localhost"}
	}
	node, err := flotilla.Open(ctx, cfg)
	if err != nil {
		return err
	}
	err = node.Serve(ctx, handler(node), domains...)
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	return errors.Join(err, node.Shutdown(ending))
}

// handler is the API. It keeps notes in the cluster, and says how its backups are.
func handler(node *flotilla.Node) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		s := node.Status()
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.Encode(map[string]any{"servedBy": s.Name, "leader": s.LeaderName, "ready": s.Ready, "backup": s.Backup})
	})
	mux.HandleFunc("GET /notes/{name}", func(w http.ResponseWriter, r *http.Request) {
		text, err := node.Storage().Load(r.Context(), note(r))
		if err != nil {
			refuse(w, err)
			return
		}
		w.Write(text)
	})
	mux.HandleFunc("PUT /notes/{name}", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNote))
		if err == nil {
			err = node.Storage().Store(r.Context(), note(r), text)
		}
		if err != nil {
			refuse(w, err)
		}
	})
	return mux
}

// note returns the name of the record that holds a note.
func note(r *http.Request) string { return "notes/" + r.PathValue("name") }

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if errors.Is(err, fs.ErrNotExist) {
		status = http.StatusNotFound
	} else if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	http.Error(w, err.Error(), status)
}
