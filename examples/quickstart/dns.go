package main

import (
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// startDNS answers DNS questions over TCP, which is how Pebble asks: domain is at 127.0.0.1, and nothing else exists. It returns
// the address, and what ends it.
func startDNS(domain string) (addr string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(question)
		for _, q := range question.Question {
			switch {
			case !strings.EqualFold(q.Name, dns.Fqdn(domain)):
				answer.Rcode = dns.RcodeNameError
			case q.Qtype == dns.TypeA:
				answer.Answer = append(answer.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1},
					A:   net.IPv4(127, 0, 0, 1),
				})
			}
		}
		w.WriteMsg(answer)
	})
	srv := &dns.Server{Listener: ln, Handler: handler, ReadTimeout: 5 * time.Second}
	go srv.ActivateAndServe()
	return ln.Addr().String(), func() { srv.Shutdown() }, nil
}
