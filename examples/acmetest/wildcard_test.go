package acmetest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// provider is a libdns provider. It sends updates (RFC 2136) to the name server at its address.
type provider struct{ addr string }

func (p provider) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return recs, p.send(ctx, zone, recs, (*dns.Msg).Insert)
}

func (p provider) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return recs, p.send(ctx, zone, recs, (*dns.Msg).Remove)
}

func (p provider) send(ctx context.Context, zone string, recs []libdns.Record, change func(*dns.Msg, []dns.RR)) error {
	update := new(dns.Msg).SetUpdate(zone)
	for _, rec := range recs {
		rr := rec.RR()
		change(update, []dns.RR{&dns.TXT{
			Hdr: dns.RR_Header{Name: libdns.AbsoluteName(rr.Name, zone), Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Txt: []string{rr.Data},
		}})
	}
	client := &dns.Client{Net: "tcp"}
	reply, _, err := client.ExchangeContext(ctx, update, p.addr)
	if err == nil && reply.Rcode != dns.RcodeSuccess {
		err = fmt.Errorf("the name server answers %s", dns.RcodeToString[reply.Rcode])
	}
	return err
}

// A wildcard certificate is validated by a DNS record and ordered once. Every node serves it, for
// exactly the names that it covers.
func TestWildcard(t *testing.T) {
	t.Parallel()
	c := startCluster(t, options{challenge: dns01, domains: []string{home, "*.wild." + zone}})
	leaf, err := c.nodes[0].serves(t.Context(), "a.wild."+zone, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "*.wild."+zone {
		t.Errorf("the certificate is for %q", leaf.DNSNames)
	}
	for _, m := range c.nodes {
		if _, err := m.serves(t.Context(), "b.wild."+zone, serial(leaf.SerialNumber.Text(16))); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"b.a.wild." + zone, "wild." + zone} {
			if leaf, err := m.shake(t.Context(), name); err == nil || !strings.Contains(err.Error(), "remote error: tls:") {
				t.Errorf("node %s answers for %s: %v, %v; want a refusal", m.Name(), name, leaf, err)
			}
		}
	}
	if n := c.ca.Orders.Load(); n != 2 {
		t.Errorf("%d orders for two names", n)
	}
	if n := c.ca.Texts(); n != 0 {
		t.Errorf("the nodes have left %d records in the zone", n)
	}
}
