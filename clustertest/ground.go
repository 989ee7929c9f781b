package clustertest

import (
	"context"
	"net"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/simnet"
)

// The ports of a node. On loopback they stand for the ones that it has.
const (
	peerPort   = "7373"
	httpsPort  = "443"
	httpPort   = "80"
	healthPort = "8081"
)

// Hosts that are not nodes. They have addresses of RFC 5737 as names, so that handlers can parse
// what they see.
const (
	clientHost   = "198.51.100.1"
	balancerHost = "198.51.100.2"
)

// ground is what the sockets of a cluster are on. Hosts have names, and ports of their own.
type ground interface {
	// place puts a node on its host: it sets addresses and functions of the configuration.
	place(host string, cfg *flotilla.Config) error
	// peerAddr returns the address at which other nodes dial a node.
	peerAddr(host string) (string, error)
	// listen opens a port of a host that is no node.
	listen(host, port string) (net.Listener, error)
	// dial connects a host to a port of another.
	dial(ctx context.Context, from, to, port string) (net.Conn, error)
	// kill ends what a node's process has to do with other nodes, in memory all that it has.
	kill(host string)
	// revive prepares a host for its next process.
	revive(host string)
}

// memory is a network in memory.
type memory struct{ net *simnet.Network }

func (m *memory) place(host string, cfg *flotilla.Config) error {
	h := m.net.Host(host)
	cfg.PeerListen, cfg.PeerDial, cfg.Listen = h.Listen, h.Dial, h.Listen
	cfg.HealthAddr = "0.0.0.0:" + healthPort // the balancer is another host
	return nil
}

func (m *memory) peerAddr(host string) (string, error) { return net.JoinHostPort(host, peerPort), nil }

func (m *memory) listen(host, port string) (net.Listener, error) {
	return m.net.Host(host).Listen("tcp", ":"+port)
}

func (m *memory) dial(ctx context.Context, from, to, port string) (net.Conn, error) {
	return m.net.Host(from).Dial(ctx, "tcp", net.JoinHostPort(to, port))
}

func (m *memory) kill(host string) { m.net.Host(host).Kill() }

func (m *memory) revive(host string) { m.net.Host(host).Revive() }
