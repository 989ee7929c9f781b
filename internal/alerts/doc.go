// Package alerts has no code of its own. Its tests prove the alerts in deploy/prometheus: a real
// Prometheus watches real nodes, each fault fires its alert and no other one, and planned work
// fires none. They also check the dashboard in deploy/grafana against that Prometheus.
//
// The tests need the programs prometheus and promtool, and skip without them. What takes minutes
// runs with -long.
package alerts
