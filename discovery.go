package flotilla

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Discovery returns addresses, as host:port, at which nodes of the cluster may be reached. It may
// return duplicates, this node's own address and addresses where no node answers. An error is
// logged, and the Discovery is called again. It must honour ctx. Open calls it once with a ctx that
// has already ended. That call only serves to find a *ConfigError, which means that the arguments
// of the Discovery can never work.
type Discovery func(ctx context.Context) ([]string, error)

// Static returns a Discovery that always finds the same addresses.
func Static(addrs ...string) Discovery {
	addrs = slices.Clone(addrs)
	return func(context.Context) ([]string, error) {
		for _, a := range addrs {
			if err := checkPeer(a); err != nil {
				return nil, err
			}
		}
		return slices.Clone(addrs), nil
	}
}

// checkPeer returns a *ConfigError if addr cannot be dialled.
func checkPeer(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		err = checkHostPort(addr)
	}
	if err != nil || host == "" || port == "0" || port == "" || strings.ContainsAny(addr, " /,") {
		return &ConfigError{Field: "Peers", Reason: strconv.Quote(addr) + " is no address of a peer; write host:port, such as 10.0.0.1:7373", Err: err}
	}
	return nil
}

// DNS returns a Discovery that finds every A and AAAA record of the host in hostport, and combines
// it with the port. It suits a service of docker compose, and a headless service of Kubernetes. The
// latter needs publishNotReadyAddresses, because otherwise no node becomes ready first.
func DNS(hostport string) Discovery {
	return func(ctx context.Context) ([]string, error) {
		if err := checkPeer(hostport); err != nil {
			return nil, err
		}
		host, port, err := net.SplitHostPort(hostport)
		if err != nil {
			return nil, err
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return nil, err
		}
		addrs := make([]string, len(ips))
		for i, ip := range ips {
			addrs[i] = net.JoinHostPort(ip, port)
		}
		return addrs, nil
	}
}

// SRV returns a Discovery that finds the targets and ports of the SRV record name. The name is
// looked up as it is, for example "_flotilla._tcp.example.com".
func SRV(name string) Discovery {
	return func(ctx context.Context) ([]string, error) {
		if name == "" || strings.ContainsAny(name, " /:,") {
			return nil, &ConfigError{Field: "Peers", Reason: strconv.Quote(name) + " is no name of an SRV record, such as _flotilla._tcp.example.com"}
		}
		_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", name)
		if err != nil {
			return nil, err
		}
		addrs := make([]string, len(records))
		for i, r := range records {
			addrs[i] = net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
		}
		return addrs, nil
	}
}
