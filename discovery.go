package flotilla

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Discovery finds addresses, host:port, at which nodes of the cluster may be reached. Duplicates,
// this node's own address and addresses where nobody answers are fine; an error is logged and the
// question asked again. It must honour ctx. Open asks once with a ctx that is over already, only to
// learn whether it is a *ConfigError: whether what the discovery was told can never be right.
type Discovery func(ctx context.Context) ([]string, error)

// Static finds always the same addresses.
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

// checkPeer returns a *ConfigError unless addr can be dialled.
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

// DNS finds every A and AAAA record of the host in hostport, with its port: a service of docker
// compose, a headless service of Kubernetes (with publishNotReadyAddresses, or nobody is ready
// first).
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

// SRV finds the targets and ports of the SRV record name, which is looked up as it stands:
// "_flotilla._tcp.example.com".
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
