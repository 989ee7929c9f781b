package metrics

import (
	"github.com/flotilla-ha/flotilla/metric"
)

// mostRoles bounds how many roles have samples. The rest is in no metric but flotilla_roles.
const mostRoles = 100

func (b *builder) roles() {
	s, r := &b.in.Status, &b.in.Roles
	role := []string{"role"}
	var held, owned, outage []metric.Sample
	for i, one := range s.Roles {
		if i == mostRoles {
			break
		}
		values := []string{one.Name}
		held = append(held, metric.Sample{Values: values, Value: number(one.Holder != "" && one.Holder == s.ID)})
		owned = append(owned, metric.Sample{Values: values, Value: number(one.Holder != "" && !one.HoldDown)})
		outage = append(outage, metric.Sample{Values: values, Value: one.Outage.Seconds()})
	}
	b.gauge("roles", "Roles that somebody holds or waits for.", float64(len(s.Roles)))
	b.add(metric.Gauge, "role_held", "1 if this node holds the role. At most 100 roles have samples.", role, held...)
	b.add(metric.Gauge, "role_has_holder", "1 if a node holds the role, as this node knows it; 0 in hold-down. A role that nobody wants has no sample.", role, owned...)
	b.add(metric.Gauge, "role_outage_seconds", "How long nobody held the role before its holder got it.", role, outage...)
	b.counts("role_changes_total", "How often this node became the holder of the role.", []string{"role", "cause"}, r.Changes)

	address := []string{"address"}
	var bound, usable, conflict []metric.Sample
	for _, a := range r.Addresses {
		values := []string{a.Addr}
		bound = append(bound, metric.Sample{Values: values, Value: number(a.Bound)})
		usable = append(usable, metric.Sample{Values: values, Value: number(a.Usable)})
		conflict = append(conflict, metric.Sample{Values: values, Value: number(a.Conflict)})
	}
	b.add(metric.Gauge, "vip_bound", "1 if the floating address is at this node.", address, bound...)
	b.add(metric.Gauge, "vip_usable", "1 if this node competes for the floating address.", address, usable...)
	b.add(metric.Gauge, "vip_conflict", "1 if a machine outside the cluster claims the floating address.", address, conflict...)
	b.counts("vip_events_total", "What has happened to the floating address at this node.", []string{"address", "kind"}, r.Events)
}
