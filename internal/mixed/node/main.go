// Command node is a small web server that is a member of a cluster. Command mixed builds it twice:
// with this tree, and with that of the previous release. So it uses only what both have.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// shutdownTime bounds the hand-over of a node that ends.
const shutdownTime = time.Minute

// settings is what a node needs to know. It is one line of JSON on the standard input. The end of
// the input means that the parent is gone.
type settings struct {
	Name, Dir, Secret         string
	Peers                     []string
	Addr, HTTPS, HTTP, Health string
	Domain                    string
	LAN                       bool // the timing; otherwise that of a WAN, which bears a busy machine
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the settings: %w", err)
	}
	var s settings
	if err := json.Unmarshal(line, &s); err != nil {
		return fmt.Errorf("reading the settings: %w", err)
	}
	go func() {
		io.Copy(io.Discard, in)
		os.Exit(3)
	}()
	secret, err := flotilla.ParseSecret(s.Secret)
	if err != nil {
		return err
	}
	timing := flotilla.WAN
	if s.LAN {
		timing = flotilla.LAN
	}
	node, err := flotilla.Open(ctx, flotilla.Config{
		Dir: s.Dir, Name: s.Name, Addr: s.Addr, Secrets: []flotilla.Secret{secret}, Peers: flotilla.Static(s.Peers...), Expect: len(s.Peers),
		TLS: flotilla.TLS{Private: true}, HTTPSAddr: s.HTTPS, HTTPAddr: s.HTTP, HealthAddr: s.Health,
		Drain: flotilla.Drain{Grace: -1}, Timing: timing,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	served := node.Serve(ctx, handler(node), s.Domain)
	ending, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	err = errors.Join(served, node.Shutdown(ending))
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // it ended before it was ready
	}
	return err
}

// handler reads and writes records. A node that is not ready takes no part: a balancer that checks
// nodes gives it no requests.
func handler(n *flotilla.Node) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /records/{key}", func(w http.ResponseWriter, r *http.Request) {
		before := n.Status().Ready
		value, err := n.Storage().Load(r.Context(), "mixed/"+r.PathValue("key"))
		switch {
		case !before || !n.Status().Ready:
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		case errors.Is(err, fs.ErrNotExist):
			http.NotFound(w, r)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			w.Write(value)
		}
	})
	mux.HandleFunc("PUT /records/{key}", func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(r.Body)
		if err == nil {
			err = n.Storage().Store(r.Context(), "mixed/"+r.PathValue("key"), value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return mux
}
