// Command grpc serves gRPC and HTTPS on one port of three machines. Its service is the one that
// every gRPC client knows: health checking (grpc.health.v1.Health). A visitor with a browser gets a
// line of text.
//
// Without any configuration it runs alone, in memory, at https://localhost:8443. On three machines
// FLOTILLA_* configures it (see flotilla.ConfigFromEnv), and GRPC_DOMAINS has the names to serve,
// separated by commas.
//
// The test shows how a gRPC client reaches a cluster of package clustertest, and what clients see
// of a restart and of a dead node.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/flotilla-ha/flotilla"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	domains := strings.FieldsFunc(os.Getenv("GRPC_DOMAINS"), func(r rune) bool { return r == ',' || r == ' ' })
	if err := run(ctx, cfg, domains...); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, cfg flotilla.Config, domains ...string) error {
	return flotilla.Serve(ctx, cfg, handler(ctx), domains...)
}

// handler serves gRPC, and everything else as HTTP. gRPC comes by HTTP/2, which clients and nodes
// agree on by themselves. Serve waits for the end of streams when the node drains, for
// Config.Drain.Patience at most. It cuts those that are left, and says so in its error.
//
// Server.ServeHTTP has what most services need. The documentation of grpc-go says what it lacks
// beside that library's own transport.
func handler(ctx context.Context) http.Handler {
	state := health.NewServer()
	// A client that watches learns at once that this node ends. It can go elsewhere while the node
	// still answers.
	context.AfterFunc(ctx, state.Shutdown)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, state) // register your services here
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			server.ServeHTTP(w, r)
			return
		}
		fmt.Fprintln(w, "this is", flotilla.NodeFrom(r.Context()).Status().Name)
	})
}
