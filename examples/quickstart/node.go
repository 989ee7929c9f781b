package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// nodeEnv is the environment variable that makes a process of this program a node.
const nodeEnv = "FLOTILLA_QUICKSTART_NODE"

// settings is what a node needs to know. The parent sends it to the standard input of the node. So
// the secret is neither in a file nor in the environment, where other processes of the user could
// read it.
type settings struct {
	Name   string
	Dir    string
	Secret string
	Peers  []string // cluster addresses of all nodes
	Domain string
	CA     string // URL of the ACME directory
	Roots  string // PEM of the certificate of the ACME server
	Email  string
	Ports  ports
}

// ports are the ports of a node, all on 127.0.0.1.
type ports struct{ Cluster, TLS, HTTP, Health int }

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// serveNode is a web server that is a member of a cluster. It does all that a program has to do to
// use flotilla: open a node, wait until it is ready, serve, and shut down when ctx ends.
// flotilla.Serve does all of this in one call.
//
// serveNode calls started with the open node, because this demonstration asks it for more.
func serveNode(ctx context.Context, s settings, log *slog.Logger, started func(*flotilla.Node)) error {
	secret, err := flotilla.ParseSecret(s.Secret)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(s.Roots)) {
		return errors.New("the certificate of the ACME server is not PEM")
	}

	// Every node has the same configuration, except its directory, its name and its addresses.
	node, err := flotilla.Open(ctx, flotilla.Config{
		Dir:        s.Dir,
		Name:       s.Name,
		Addr:       local(s.Ports.Cluster),
		Secrets:    []flotilla.Secret{secret},
		Peers:      flotilla.Static(s.Peers...),
		Expect:     len(s.Peers),
		TLS:        flotilla.TLS{Email: s.Email, CA: s.CA, TrustedRoots: roots},
		HTTPSAddr:  local(s.Ports.TLS),
		HTTPAddr:   local(s.Ports.HTTP),
		HealthAddr: local(s.Ports.Health),
		Drain:      flotilla.Drain{Grace: -1}, // the balancer makes no health checks that need time
		Logger:     log,
	})
	if err != nil {
		return err
	}
	defer node.Close() // does nothing after Shutdown
	started(node)

	// To a balancer without health checks an open port is a working node. So the ports open when
	// the node works.
	if err := node.Ready(ctx); err != nil {
		return err
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from %s\n", s.Name)
	})
	// Until SIGTERM, and until every open request has its answer.
	served := node.Serve(ctx, hello, s.Domain)

	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(served, node.Shutdown(ending)) // hands over its leadership
}

// nodeMain is main in the process of a node. The parent sends the settings and then questions to
// its standard input, each as a line. The node ends when the input ends: then the parent is gone.
func nodeMain() int {
	// Ctrl-C reaches all processes of the terminal. The parent decides when the nodes end.
	signal.Ignore(os.Interrupt, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	var s settings
	in, err := process.ReadSettings(&s)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s is set: %v\n", nodeEnv, err)
		return 2
	}

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err = serveNode(ctx, s, log, func(node *flotilla.Node) { go answer(in, os.Stdout, node) })
	// It is no failure to end before the node is ready.
	if err != nil && !(ctx.Err() != nil && errors.Is(err, ctx.Err())) {
		log.Error("the node has failed", "err", err)
		return 1
	}
	return 0
}

// answer answers one question of the parent: for the private keys in the storage of the cluster.
// The parent searches the disks for them. They only go through a pipe between the two processes.
func answer(in *bufio.Reader, out io.Writer, node *flotilla.Node) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(1) // the parent is gone
		}
		if strings.TrimSpace(line) != "keys" {
			continue
		}
		a := keysAnswer{}
		if a.Keys, err = privateKeys(node); err != nil {
			a.Err = err.Error()
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			os.Exit(1)
		}
	}
}

// keysAnswer is the answer to the question "keys".
type keysAnswer struct {
	Keys map[string]string // PEM by name in storage
	Err  string
}

// privateKeys returns all private keys in storage: of the certificate and of the ACME account.
func privateKeys(node *flotilla.Node) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	names, err := node.Storage().List(ctx, "", true)
	if err != nil {
		return nil, err
	}
	keys := make(map[string]string)
	for _, name := range names {
		if !strings.HasSuffix(name, ".key") {
			continue
		}
		pem, err := node.Storage().Load(ctx, name)
		if err != nil {
			return nil, err
		}
		keys[name] = string(pem)
	}
	return keys, nil
}
