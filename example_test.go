package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// A node without a configuration is a cluster of its own, in memory.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, err := flotilla.Open(ctx, flotilla.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Ready(ctx); err != nil {
		log.Fatal(err)
	}

	storage := node.Storage()
	if err := storage.Store(ctx, "greetings/en", []byte("hello")); err != nil {
		log.Fatal(err)
	}
	value, err := storage.Load(ctx, "greetings/en")
	if err != nil {
		log.Fatal(err)
	}
	keys, err := storage.List(ctx, "", true)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %v\n", value, keys)
	// Output: hello [greetings greetings/en]
}

// One of three nodes that form a cluster together. The other two differ in Dir alone.
func ExampleOpen_cluster() {
	secret, err := flotilla.ParseSecret(os.Getenv("SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	node, err := flotilla.Open(context.Background(), flotilla.Config{
		Dir:     "/var/lib/api",
		Secrets: []flotilla.Secret{secret},
		Peers:   flotilla.Static("10.0.0.1:7373", "10.0.0.2:7373", "10.0.0.3:7373"),
		Expect:  3,
	})
	if err != nil {
		log.Fatal(err) // says which field is wrong, and the remedy
	}
	defer node.Close()
}

// A web server that serves HTTPS with certificates of its own: alone on a developer's machine, as
// one of several nodes where the environment says so.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	if err := flotilla.Serve(ctx, cfg, hello, "api.example.com"); err != nil {
		log.Fatal(err)
	}
}

// A server of your own, with the node's certificates.
func ExampleNode_ListenTLS() {
	node, err := flotilla.Open(context.Background(), flotilla.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	ln, err := node.ListenTLS("tcp", "localhost:8443", "localhost")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(srv.Serve(ln)) // Serve: ServeTLS would add a second layer of TLS
}

// An operator makes one secret and gives it to every node.
func ExampleNewSecret() {
	secret := flotilla.NewSecret()
	text := secret.Encode() // to be written where nodes find it, and nowhere else
	again, err := flotilla.ParseSecret(text)
	fmt.Println(strings.HasPrefix(text, "flt1_"), again == secret, err)
	// Output: true true <nil>
}

// What is printed of a secret is its fingerprint. It is the same on every node.
func ExampleParseSecret() {
	secret, err := flotilla.ParseSecret("flt1_aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypqi3oxstq")
	fmt.Println(secret, err)
	_, err = flotilla.ParseSecret("flt1_aaaqgayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypqi3oxstq")
	fmt.Println(err)
	// Output:
	// secret(dd381c12cceb814c) <nil>
	// flotilla: the checksum of this secret is wrong; copy it again, whole
}

// Without variables of its own a program runs in development mode; with them it is a node of a
// cluster.
func ExampleConfigFromEnv() {
	os.Setenv("FLOTILLA_EXPECT", "three")
	defer os.Unsetenv("FLOTILLA_EXPECT")
	_, err := flotilla.ConfigFromEnv()
	var wrong *flotilla.ConfigError
	fmt.Println(errors.As(err, &wrong), wrong.Field)

	os.Setenv("FLOTILLA_EXPECT", "3")
	cfg, err := flotilla.ConfigFromEnv()
	fmt.Println(cfg.Expect, err)
	// Output:
	// true Expect
	// 3 <nil>
}

func ExampleNode_Hold() {
	ctx := context.Background()
	node, err := flotilla.Open(ctx, flotilla.Config{Addr: "localhost:0"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	report := func(ctx context.Context, tenure flotilla.Tenure) error {
		fmt.Println("no other node does this now")
		// The write is refused if the role is lost before it is committed.
		return node.Storage().Store(ctx, "reports/last", []byte("all is well"))
	}
	if err := node.Hold(ctx, flotilla.Role{Name: "nightly report"}, report); err != nil {
		log.Fatal(err)
	}
	last, err := node.Storage().Load(ctx, "reports/last")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", last)
	// Output:
	// no other node does this now
	// all is well
}

// Behind a proxy that speaks HTTP, on a network of its own.
func ExampleTrustForwarded() {
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Println(r.RemoteAddr) })
	h := flotilla.TrustForwarded([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, app)

	r := httptest.NewRequest("GET", "/", nil)
	// the first is what the client said, the second what the proxy saw
	r.Header.Set("X-Forwarded-For", "6.6.6.6, 203.0.113.7")
	r.RemoteAddr = "10.0.0.1:5000"
	h.ServeHTTP(httptest.NewRecorder(), r)
	r.RemoteAddr = "198.51.100.1:5000" // not the proxy
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output:
	// 203.0.113.7:0
	// 198.51.100.1:5000
}
