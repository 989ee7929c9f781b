package main

import (
	"errors"
	"log"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// zone has the addresses of names. No other names exist.
type zone map[string][]net.IP

// serve answers at addr over UDP, and over TCP, which Pebble uses. It returns the address for
// programs on this machine.
func (z zone) serve(addr string) (string, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return "", errors.Join(err, ln.Close())
	}
	for _, srv := range []*dns.Server{{Listener: ln}, {PacketConn: udp}} {
		srv.ReadTimeout, srv.Handler = 5*time.Second, dns.HandlerFunc(z.answer)
		go func() { log.Fatal(srv.ActivateAndServe()) }()
	}
	return net.JoinHostPort("127.0.0.1", port), nil
}

// answer answers one question. The order of the addresses changes each time, to spread clients, as
// at any provider.
func (z zone) answer(w dns.ResponseWriter, question *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(question)
	answer.Authoritative = true
	for _, q := range question.Question {
		addrs, known := z[strings.ToLower(strings.TrimSuffix(q.Name, "."))]
		if !known {
			answer.Rcode = dns.RcodeNameError
		}
		header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 5}
		for _, i := range rand.Perm(len(addrs)) {
			ip4 := addrs[i].To4()
			switch {
			case q.Qtype == dns.TypeA && ip4 != nil:
				answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: ip4})
			case q.Qtype == dns.TypeAAAA && ip4 == nil:
				answer.Answer = append(answer.Answer, &dns.AAAA{Hdr: header, AAAA: addrs[i]})
			}
		}
	}
	w.WriteMsg(answer) // a client that gets nothing asks again
}
