package admin

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
)

// findPeers returns how to find nodes: by the flag, or by the environment.
func findPeers(env *cli.Env, text string) (flotilla.Discovery, error) {
	from := "-peers"
	if text == "" {
		text, from = env.Getenv("FLOTILLA_PEERS"), "FLOTILLA_PEERS"
	}
	text = strings.TrimSpace(text)
	if name, ok := strings.CutPrefix(text, "srv:"); ok && name != "" {
		return flotilla.SRV(name), nil
	}
	host, isDNS := strings.CutPrefix(text, "dns:")
	addrs := words(host)
	if len(addrs) == 0 {
		return nil, cli.Usagef("the addresses of the cluster's nodes are missing; give -peers, or set FLOTILLA_PEERS")
	}
	for _, a := range addrs {
		if err := checkHostPort(a); err != nil {
			return nil, cli.Usagef("%s must list addresses as host:port: %v", from, err)
		}
	}
	if isDNS {
		return flotilla.DNS(host), nil
	}
	return flotilla.Static(addrs...), nil
}

func checkHostPort(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("%q names no host or no port", addr)
	}
	return nil
}
