package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Port is the port at which responders answer.
const Port = 7777

// Respond answers questions for its name, by UDP and TCP at [Port] of all addresses, until ctx
// ends. It calls ready when it can answer.
//
// The answer to a datagram comes from the address that it was sent to. It contains the first 8
// bytes of the datagram, and the name. A connection gets the name and is closed.
func Respond(ctx context.Context, name string, ready func()) error {
	var lc net.ListenConfig
	address := fmt.Sprintf(":%d", Port)
	tcp, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer tcp.Close()
	udp4, err := lc.ListenPacket(ctx, "udp4", address)
	if err != nil {
		return err
	}
	defer udp4.Close()
	udp6, err := lc.ListenPacket(ctx, "udp6", address)
	if err != nil {
		return err
	}
	defer udp6.Close()
	p4, p6 := ipv4.NewPacketConn(udp4), ipv6.NewPacketConn(udp6)
	if err := p4.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return err
	}
	if err := p6.SetControlMessage(ipv6.FlagDst, true); err != nil {
		return err
	}
	ready()

	var running sync.WaitGroup
	running.Go(func() {
		echo(name, func(b []byte) (int, func([]byte), error) {
			n, cm, from, err := p4.ReadFrom(b)
			return n, func(b []byte) {
				if cm != nil {
					// It fails if the address is gone by now.
					p4.WriteTo(b, &ipv4.ControlMessage{Src: cm.Dst}, from)
				}
			}, err
		})
	})
	running.Go(func() {
		echo(name, func(b []byte) (int, func([]byte), error) {
			n, cm, from, err := p6.ReadFrom(b)
			return n, func(b []byte) {
				if cm != nil {
					p6.WriteTo(b, &ipv6.ControlMessage{Src: cm.Dst}, from)
				}
			}, err
		})
	})
	running.Go(func() {
		for {
			conn, err := tcp.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				conn.Write([]byte(name))
				conn.Close()
			}
		}
	})
	<-ctx.Done()
	err = errors.Join(tcp.Close(), udp4.Close(), udp6.Close())
	running.Wait()
	return err
}

// echo answers datagrams until their socket is closed.
func echo(name string, read func([]byte) (n int, reply func([]byte), err error)) {
	buf := make([]byte, 256)
	for {
		n, reply, err := read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n >= 8 {
			reply(append(buf[:8:8], name...))
		}
	}
}
