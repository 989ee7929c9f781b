package lab

import (
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Zone is the zone of the name server. It accepts updates of names in it.
const Zone = "test"

// nameServer answers DNS questions over UDP, and over TCP, which Pebble uses. It accepts updates of
// TXT records from everybody.
type nameServer struct {
	addr  string
	where func(name string) net.IP // nil for a name that does not exist
	stop  []func() error

	mu    sync.Mutex
	texts []*dns.TXT
}

func newNameServer(where func(name string) net.IP) (*nameServer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenPacket("udp", ln.Addr().String())
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s := &nameServer{addr: ln.Addr().String(), where: where, stop: []func() error{ln.Close, udp.Close}}
	// By default updates are refused.
	accept := func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
	for _, srv := range []*dns.Server{{Listener: ln}, {PacketConn: udp}} {
		srv.ReadTimeout, srv.Handler, srv.MsgAcceptFunc = 5*time.Second, dns.HandlerFunc(s.serve), accept
		go srv.ActivateAndServe() // ends with its listener
	}
	return s, nil
}

func (s *nameServer) close() {
	for _, f := range s.stop {
		f()
	}
}

func (s *nameServer) serve(w dns.ResponseWriter, question *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(question)
	if question.Opcode == dns.OpcodeUpdate {
		s.update(question.Ns)
	} else {
		for _, q := range question.Question {
			answer.Answer = append(answer.Answer, s.records(q)...)
		}
		if len(answer.Answer) == 0 {
			answer.Rcode = dns.RcodeNameError
		}
	}
	w.WriteMsg(answer) // a client that gets nothing asks again
}

// records returns the answers to one question.
func (s *nameServer) records(q dns.Question) []dns.RR {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	switch q.Qtype {
	case dns.TypeA:
		if ip := s.where(name); ip != nil {
			return []dns.RR{&dns.A{Hdr: header, A: ip}}
		}
	case dns.TypeSOA:
		if name == Zone {
			return []dns.RR{&dns.SOA{Hdr: header, Ns: "ns." + Zone + ".", Mbox: "admin." + Zone + "."}}
		}
	case dns.TypeTXT:
		s.mu.Lock()
		defer s.mu.Unlock()
		var all []dns.RR
		for _, txt := range s.texts {
			if strings.EqualFold(txt.Hdr.Name, q.Name) {
				all = append(all, txt)
			}
		}
		return all
	}
	return nil
}

// count returns the number of TXT records in the zone.
func (s *nameServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.texts)
}

// update adds TXT records to the zone, and removes those with class NONE (RFC 2136).
func (s *nameServer) update(changes []dns.RR) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rr := range changes {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		if txt.Hdr.Class == dns.ClassINET {
			s.texts = append(s.texts, txt)
			continue
		}
		s.texts = slices.DeleteFunc(s.texts, func(old *dns.TXT) bool {
			return old.Hdr.Name == txt.Hdr.Name && slices.Equal(old.Txt, txt.Txt)
		})
	}
}
