package flotilla

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Discovery finds addresses, host:port, at which nodes of the cluster may be reached. Duplicates, this node's own address and
// addresses where nobody answers are fine; an error is logged and the question asked again. It must honour ctx.
type Discovery func(ctx context.Context) ([]string, error)

// Static finds always the same addresses.
func Static(addrs ...string) Discovery {
	addrs = slices.Clone(addrs)
	return func(context.Context) ([]string, error) { return slices.Clone(addrs), nil }
}

// DNS finds every A and AAAA record of the host in hostport, with its port: a service of docker compose, a headless
// service of Kubernetes (with publishNotReadyAddresses, or nobody is ready first).
func DNS(hostport string) Discovery {
	return func(ctx context.Context) ([]string, error) {
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

// SRV finds the targets and ports of the SRV record name, which is looked up as it stands: "_flotilla._tcp.example.com".
func SRV(name string) Discovery {
	return func(ctx context.Context) ([]string, error) {
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
