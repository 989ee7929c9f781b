package lab

import (
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// serveDNS answers DNS questions over TCP, which is how Pebble asks, with the address that where returns for a name; one for which that is
// nil does not exist. It returns its own address, and what ends it.
func serveDNS(where func(name string) net.IP) (addr string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(question)
		for _, q := range question.Question {
			if q.Qtype != dns.TypeA {
				continue
			}
			ip := where(strings.ToLower(strings.TrimSuffix(q.Name, ".")))
			if ip == nil {
				answer.Rcode = dns.RcodeNameError
				continue
			}
			header := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}
			answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: ip})
		}
		w.WriteMsg(answer) // Pebble asks again if the connection is gone
	})
	srv := &dns.Server{Listener: ln, Handler: handler, ReadTimeout: 5 * time.Second}
	go srv.ActivateAndServe() // ends with ln
	return ln.Addr().String(), func() { ln.Close() }, nil
}
