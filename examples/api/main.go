// Command api is an API server for three machines, as a user of flotilla would write it. It serves
// HTTPS itself, its instances share certificates, and floating addresses are always at a living
// instance. It answers with its name and the owners of the addresses.
//
// The cluster is configured by FLOTILLA_* (see flotilla.ConfigFromEnv), the server by
//
//	API_DOMAINS      names to serve, separated by commas; empty: for trials, a private
//	                 certificate for the floating addresses
//	API_HTTPS_ADDR   for clients; default :443
//	API_HTTP_ADDR    for challenges, and for redirects to HTTPS; default :80
//	API_HEALTH_ADDR  for balancers and people; default 127.0.0.1:8081, for this machine only
//	API_VIPS         floating addresses, separated by commas, as 192.0.2.100/24@eth0 or without
//	                 @ and the interface; addresses joined by + stay together
//	API_RATE         requests of one client in a second, at all instances together; empty: no limit
//
// "api health" exits with 0 if the server on this machine is ready.
//
// limit.go has the limit of a rate, systemd.go what the program does for systemd. deploy/systemd
// has the units.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/vip"
)

const localHealth = "127.0.0.1:8081" // the default of API_HEALTH_ADDR

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 {
		if len(os.Args) != 2 || os.Args[1] != "health" {
			log.Fatal("usage: api [health]")
		}
		if err := health(); err != nil {
			log.Fatal(err)
		}
		return
	}
	// Init systems and docker send SIGTERM. Then the address moves, requests end, and then the
	// process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run serves as the environment says, until ctx ends.
func run(ctx context.Context) error {
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	cfg.HTTPSAddr, cfg.HTTPAddr = env("API_HTTPS_ADDR", ":443"), env("API_HTTP_ADDR", ":80")
	cfg.HealthAddr = env("API_HEALTH_ADDR", localHealth)
	addrs, err := parseVIPs(os.Getenv("API_VIPS"))
	if err != nil {
		return err
	}
	domains := strings.FieldsFunc(os.Getenv("API_DOMAINS"), func(r rune) bool { return r == ',' || r == ' ' })
	if len(domains) == 0 {
		cfg.TLS.Private = true // browsers do not trust it
		domains = []string{"localhost"}
		for _, v := range addrs {
			for _, a := range append([]netip.Prefix{v.Addr}, v.With...) {
				domains = append(domains, a.Addr().String())
			}
		}
	}
	if cfg.Listen, err = activated(cfg.HTTPSAddr, cfg.HTTPAddr, cfg.HealthAddr); err != nil {
		return err
	}
	return serve(ctx, cfg, domains, addrs)
}

// serve runs a node of the cluster, with floating addresses, until ctx ends. It reads no
// environment: its tests run it on a cluster in memory.
func serve(ctx context.Context, cfg flotilla.Config, domains []string, addrs []vip.Config) error {
	// When clients use the address itself, no balancer needs time: the address moves at once.
	if len(addrs) > 0 && len(cfg.Proxies) == 0 {
		cfg.Drain.Grace = -1
	}
	node, err := flotilla.Open(ctx, cfg)
	if err != nil {
		return err
	}
	telling, toldAll := context.WithCancel(context.WithoutCancel(ctx)) // until the very end
	defer toldAll()
	if err := tellSystemd(telling, ctx, node); err != nil {
		return errors.Join(err, node.Close())
	}
	// An address stays at a node while the node can serve: Serve waits until the address has moved.
	var floating sync.WaitGroup
	signalled := ctx // ends by a signal
	ctx, cancel := context.WithCancelCause(ctx)
	for _, v := range addrs {
		v.Logger = cfg.Logger.With("node", node.Status().Name)
		floating.Go(func() {
			if err := vip.Run(ctx, node, v); err != nil {
				cancel(err)
			}
		})
	}
	api, err := limited(node, handler(node), os.Getenv("API_RATE"))
	if err == nil {
		err = node.Serve(ctx, api, domains...)
	}
	cancel(err)
	floating.Wait()
	ending, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	if closed := node.Shutdown(ending); err == nil {
		err = closed
	}
	if cause := context.Cause(ctx); err == nil && signalled.Err() == nil && cause != context.Canceled {
		err = cause
	}
	return err
}

// handler is the API. It has one method.
func handler(node *flotilla.Node) http.Handler {
	type role struct {
		Name, Owner string
		Since       time.Time
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s := node.Status()
		names := make(map[string]string)
		for _, m := range s.Members {
			names[m.ID] = m.Name
		}
		roles := []role{}
		for _, q := range s.Roles {
			roles = append(roles, role{q.Name, names[q.Holder], q.Since})
		}
		at := ""
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			at = local.String()
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.Encode(map[string]any{
			"servedBy": s.Name, "at": at, "client": r.RemoteAddr, "leader": s.LeaderName, "ready": s.Ready, "roles": roles,
		})
	})
	return mux
}

// parseVIPs reads API_VIPS.
func parseVIPs(text string) ([]vip.Config, error) {
	var all []vip.Config
	for _, unit := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		prefixes, ifname, _ := strings.Cut(unit, "@")
		c := vip.Config{Interface: ifname}
		for i, p := range strings.Split(prefixes, "+") {
			addr, err := netip.ParsePrefix(p)
			if err != nil {
				return nil, fmt.Errorf("API_VIPS: %q is not an address with its prefix length, such as 192.0.2.100/24@eth0", p)
			}
			if i == 0 {
				c.Addr = addr
			} else {
				c.With = append(c.With, addr)
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// health asks the server on this machine.
func health() error {
	host, port, err := net.SplitHostPort(env("API_HEALTH_ADDR", localHealth))
	if err != nil {
		return fmt.Errorf("API_HEALTH_ADDR: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	client := http.Client{Timeout: 3 * time.Second}
	resp, err := client.Get("http://" + net.JoinHostPort(host, port) + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
