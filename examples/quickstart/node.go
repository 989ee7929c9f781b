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
)

// nodeEnv is the environment variable that makes a process of this program a node.
const nodeEnv = "FLOTILLA_QUICKSTART_NODE"

// settings is what a node is told on its standard input, in one line of JSON. The secret is among it, so that it is neither
// in a file nor in the environment, where other processes of the user could read it.
type settings struct {
	Name   string
	Dir    string
	Secret string
	Peers  []string // cluster addresses of all nodes
	Domain string
	CA     string // URL of the ACME directory
	Roots  string // PEM of the certificate that the ACME server shows
	Email  string
	Ports  ports
}

// ports is what a node listens on, always on 127.0.0.1.
type ports struct{ Cluster, TLS, HTTP, Health int }

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// serveNode is a web server that is a member of a cluster. It is all that a program has to do to use flotilla: open a node, wait
// until it is ready, serve, and say goodbye when ctx ends. flotilla.Serve is all of these in one call.
//
// started is called with the open node, for what this show wants to know of it.
func serveNode(ctx context.Context, s settings, log *slog.Logger, started func(*flotilla.Node)) error {
	secret, err := flotilla.ParseSecret(s.Secret)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(s.Roots)) {
		return errors.New("the certificate of the ACME server is not PEM")
	}

	// Every node has the same configuration, but for its directory, its name and its addresses.
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
		Drain:      flotilla.Drain{Grace: -1}, // the balancer looks at nothing, and need not be given time to
		Logger:     log,
	})
	if err != nil {
		return err
	}
	defer node.Close() // does nothing after Shutdown
	started(node)

	// The balancer looks at nothing: to it an open port is a working node. So the ports open when the node works.
	if err := node.Ready(ctx); err != nil {
		return err
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from %s\n", s.Name)
	})
	served := node.Serve(ctx, hello, s.Domain) // until SIGTERM; then every request under way gets its answer

	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(served, node.Shutdown(bye)) // hands over what it leads, and ends
}

// nodeMain is main in a node's process. Its parent talks to it through standard input and output: first the settings, then
// questions, each a line. When the input ends, the parent is gone, and so is the node.
func nodeMain() int {
	// Ctrl-C reaches every process of the terminal; what it means to the nodes is for the parent to say.
	signal.Ignore(os.Interrupt, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	in := bufio.NewReader(os.Stdin)
	var s settings
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s is set, so standard input must give a node's settings: %v\n", nodeEnv, err)
		return 2
	}

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err = serveNode(ctx, s, log, func(node *flotilla.Node) { go answer(in, os.Stdout, node) })
	if err != nil && !(ctx.Err() != nil && errors.Is(err, ctx.Err())) { // ended before it was ready is a good end
		log.Error("the node has failed", "err", err)
		return 1
	}
	return 0
}

// answer answers the parent's one question, for the private keys in the cluster's storage, so that the parent can search
// the disks for them. They go through a pipe between the two processes and nowhere else.
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

// privateKeys returns every private key in storage: the certificate's and the ACME account's.
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
