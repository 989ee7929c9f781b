package metrics

import (
	"cmp"
	"slices"

	"github.com/flotilla-ha/flotilla/metric"
	"github.com/flotilla-ha/flotilla/status"
)

// mostNames bounds how many certificates have samples of their own.
const mostNames = 100

func (b *builder) certificates() {
	s, c := &b.in.Status, &b.in.Certificates
	var valid, selfSigned, missing, expired, failing int
	now := b.in.Now
	for i := range s.Certificates {
		cert := &s.Certificates[i]
		switch {
		case cert.SelfSigned:
			selfSigned++
		case cert.NotAfter.IsZero():
			missing++
		case cert.NotAfter.Before(now):
			expired++
		default:
			valid++
		}
		if cert.Err != "" {
			failing++
		}
	}
	b.add(metric.Gauge, "certificates", "Certificates that this node serves, by state.", []string{"state"},
		metric.Sample{Values: []string{"valid"}, Value: float64(valid)},
		metric.Sample{Values: []string{"expired"}, Value: float64(expired)},
		metric.Sample{Values: []string{"self_signed"}, Value: float64(selfSigned)},
		metric.Sample{Values: []string{"missing"}, Value: float64(missing)})
	b.gauge("certificates_failing", "Names whose last order failed. They may have a valid certificate.", float64(failing))
	b.gauge("certificates_on_demand", "On-demand certificates in memory.", float64(s.OnDemand))

	name := []string{"name"}
	var notAfter, renewal, self, next, failures, ocsp []metric.Sample
	for _, cert := range first(s.Certificates) {
		values := []string{cert.Name}
		if !cert.NotAfter.IsZero() {
			notAfter = append(notAfter, metric.Sample{Values: []string{cert.Name, cert.Issuer}, Value: unix(cert.NotAfter)})
		}
		if !cert.Renewal.IsZero() {
			renewal = append(renewal, metric.Sample{Values: values, Value: unix(cert.Renewal)})
		}
		if !cert.Next.IsZero() {
			next = append(next, metric.Sample{Values: values, Value: unix(cert.Next)})
		}
		if !cert.OCSPNextUpdate.IsZero() {
			ocsp = append(ocsp, metric.Sample{Values: values, Value: unix(cert.OCSPNextUpdate)})
		}
		self = append(self, metric.Sample{Values: values, Value: number(cert.SelfSigned)})
		failures = append(failures, metric.Sample{Values: values, Value: float64(cert.Failures)})
	}
	b.add(metric.Gauge, "certificate_not_after_timestamp_seconds", "When the certificate expires. The 100 that expire first have samples.",
		[]string{"name", "issuer"}, notAfter...)
	b.add(metric.Gauge, "certificate_renewal_timestamp_seconds", "When the certificate is to be renewed.", name, renewal...)
	b.add(metric.Gauge, "certificate_self_signed", "1 if clients get a self-signed certificate, because the authority has never issued one.", name, self...)
	b.add(metric.Gauge, "ocsp_next_update_timestamp_seconds", "Until when the stapled OCSP answer is valid.", name, ocsp...)
	b.add(metric.Gauge, "order_next_timestamp_seconds", "When an order that failed is tried again.", name, next...)
	b.add(metric.Gauge, "order_failures", "Orders that the authority has refused since the last one that it did not refuse.", name, failures...)
	b.counts("orders_total", "Orders of certificates.", []string{"issuer", "action", "result"}, c.Orders)
	b.histogram("order_seconds", "How long orders took.", c.Order)
	b.moment("renewal_check_timestamp_seconds", "When this node looked last whether certificates are to be renewed.", c.RenewalCheck)
	b.counts("challenges_total", "Challenges of authorities that this node was asked for.", []string{"type", "result"}, c.Challenges)
}

// first returns the certificates that have samples: those without one, then those that expire
// first.
func first(all []status.Certificate) []status.Certificate {
	if len(all) <= mostNames {
		return all
	}
	order := make([]*status.Certificate, len(all))
	for i := range all {
		order[i] = &all[i]
	}
	slices.SortStableFunc(order, func(a, b *status.Certificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Name, b.Name))
	})
	out := make([]status.Certificate, mostNames)
	for i := range out {
		out[i] = *order[i]
	}
	return out
}
