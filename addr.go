package flotilla

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		return "node"
	}
	return name
}

// checkHostPort checks the form of an address.
func checkHostPort(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

// port is an address to listen on, and its field of Config.
type port struct{ field, addr string }

// ports returns the addresses to listen on.
func (c *Config) ports() []port {
	return []port{{"Addr", c.Addr}, {"HTTPSAddr", c.HTTPSAddr}, {"HTTPAddr", c.HTTPAddr}, {"HealthAddr", c.HealthAddr}}
}

// checkPorts checks the form of the addresses to listen on, and that no two are the same.
func checkPorts(all []port) error {
	taken := make(map[string]string)
	for _, a := range all {
		if a.addr == "" {
			continue
		}
		if err := checkHostPort(a.addr); err != nil {
			return &ConfigError{Field: a.field, Reason: "it must be host:port, and the host may be empty", Err: err}
		}
		if _, number, _ := net.SplitHostPort(a.addr); number == "0" {
			continue
		}
		if other := taken[a.addr]; other != "" {
			return &ConfigError{Field: a.field, Reason: fmt.Sprintf("it is %s, as %s is; give each an address of its own", a.addr, other)}
		}
		taken[a.addr] = a.field
	}
	return nil
}

// orLoopback returns addr, with the loopback address in place of an empty host.
func orLoopback(addr string) string {
	if host, port, err := net.SplitHostPort(addr); err == nil && host == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// loopbackOnly returns a *ConfigError naming field unless addr, "host:port", can be reached from
// this machine alone.
func loopbackOnly(field, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return &ConfigError{Field: field, Reason: "an address is host:port", Err: err}
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost") {
		return nil
	}
	return &ConfigError{Field: field, Reason: fmt.Sprintf("%q is not a loopback address, and without Dir, Peers and Secrets "+
		"this is a development node, whose private certificates are for this machine alone; set them, or listen on localhost", addr)}
}
