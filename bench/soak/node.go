//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla"
)

// The environment variables of a node process.
const (
	httpVariable    = "SOAK_HTTP"    // the address at which it answers
	debugVariable   = "SOAK_DEBUG"   // it logs everything
	holdersVariable = "SOAK_HOLDERS" // the file in which it records the roles that it holds
)

// roles are the roles that the nodes compete for.
func roles() []string { return []string{"one", "two"} }

func runAs(role string) int {
	var err error
	switch role {
	case "node":
		err = runNode()
	case "burn":
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		for i := 0; ; i++ {
			sha256.Sum256([]byte{byte(i)})
		}
	default:
		err = fmt.Errorf("no process is a %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// runNode is one node. It ends with SIGTERM, or when its parent is gone.
func runNode() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	if os.Getenv(debugVariable) != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	holders, err := os.OpenFile(os.Getenv(holdersVariable), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", os.Getenv(httpVariable))
	if err != nil {
		return err
	}
	n, err := flotilla.Open(ctx, cfg)
	if err != nil {
		return err
	}
	go http.Serve(ln, handler(n))
	for _, role := range roles() {
		go holdForEver(ctx, n, role, holders)
	}
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return n.Shutdown(bounded)
}

// read is the answer of a node to GET /read.
type read struct {
	Value string
	Err   string

	// Whether the node says that it has a lease, just before and just after the read.
	ClaimedBefore, ClaimedAfter bool
}

func handler(n *flotilla.Node) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", n.Health())
	claims := func() bool { s := n.Status(); return s.Ready || s.Lease.Held }
	answer := func(w http.ResponseWriter, v any) { json.NewEncoder(w).Encode(v) }
	mux.HandleFunc("GET /read", func(w http.ResponseWriter, r *http.Request) {
		out := read{ClaimedBefore: claims()}
		value, err := n.Storage().Load(r.Context(), r.FormValue("key"))
		out.ClaimedAfter = claims()
		if out.Value = string(value); err != nil {
			out.Err = err.Error()
		}
		answer(w, out)
	})
	mux.HandleFunc("POST /write", func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(r.Body)
		if err == nil {
			err = n.Storage().Store(r.Context(), r.FormValue("key"), value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	// The digest of all records: nodes with equal states have equal digests.
	mux.HandleFunc("GET /digest", func(w http.ResponseWriter, r *http.Request) {
		keys, err := n.Storage().List(r.Context(), "", true)
		h := sha256.New()
		for _, key := range keys {
			value, _ := n.Storage().Load(r.Context(), key) // a directory has no value
			fmt.Fprintf(h, "%q %q\n", key, value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, hex.EncodeToString(h.Sum(nil)))
	})
	return mux
}

// holdForEver competes for a role. While it holds the role it records that in the file: role,
// fence, name, and the monotonic time, which all processes of a machine share.
func holdForEver(ctx context.Context, n *flotilla.Node, role string, file *os.File) {
	name := n.Status().Name
	for ctx.Err() == nil {
		n.Hold(ctx, flotilla.Role{Name: role}, func(ctx context.Context, t flotilla.Tenure) error {
			ticker := time.NewTicker(5 * time.Millisecond)
			defer ticker.Stop()
			for {
				at := monotonic() // before the question whether it holds the role
				if ctx.Err() != nil || !time.Now().Before(t.Deadline()) {
					return nil
				}
				var line bytes.Buffer
				fmt.Fprintln(&line, role, t.Fence(), name, at)
				if _, err := file.Write(line.Bytes()); err != nil {
					return err
				}
				select {
				case <-ticker.C:
				case <-ctx.Done():
				}
			}
		})
	}
}

// monotonic returns the monotonic time of the machine.
func monotonic() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}
