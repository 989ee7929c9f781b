//go:build unix

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/bench/internal/proc"
	"github.com/flotilla-ha/flotilla/internal/freeport"
)

const (
	// exchangeVariable is the environment variable that tells an exchanging process the pause
	// between its messages, its own address, and those of its peers.
	exchangeVariable = "BENCH_EXCHANGE"

	exchangeBytes = 100 // in a message, about those of a renewal
)

// newExchange starts three processes that do nothing but send one another a message over TCP again
// and again, as often as nodes renew leases. What they cost is what the machine, the kernel and Go
// take for that. So it tells figures of slow machines from those of slow code.
func newExchange(b *testing.B, every time.Duration) []*process {
	b.Helper()
	addrs, err := freeport.Addrs(3)
	if err != nil {
		b.Fatal(err)
	}
	var all []*process
	for i := range addrs {
		words := append([]string{every.String(), addrs[i]}, addrs[:i]...)
		env := append(os.Environ(), proc.RoleVariable+"=exchange",
			exchangeVariable+"="+strings.Join(append(words, addrs[i+1:]...), " "))
		p := &process{&proc.Process{Env: env}}
		b.Cleanup(p.Kill)
		p.start(b)
		all = append(all, p)
	}
	return all
}

// runExchange is one of these processes. It answers each line of its standard input with its
// vitals, and ends with the input.
func runExchange(ctx context.Context) error {
	words := strings.Fields(os.Getenv(exchangeVariable))
	every, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", words[1])
	if err != nil {
		return err
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for b := make([]byte, 4<<10); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	go exchange(words[2:], every)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var use syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
			return err
		}
		line, err := json.Marshal(vitals{CPU: time.Duration(use.Utime.Nano() + use.Stime.Nano())})
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return nil
}

// exchange sends messages to all addresses for ever. An address that does not answer yet is dialled
// again.
func exchange(addrs []string, every time.Duration) {
	conns := make([]net.Conn, len(addrs))
	message := make([]byte, exchangeBytes)
	for range time.Tick(every) {
		for i, addr := range addrs {
			if conns[i] == nil {
				conns[i], _ = net.Dial("tcp", addr)
				continue
			}
			conns[i].Write(message)
		}
	}
}
