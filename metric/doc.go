// Package metric declares the metrics of a node, and writes them as text.
//
// Node.Metrics of package flotilla returns Families. The health port writes them at /metrics. A
// program with a Prometheus registry uses the module metrics, and any other program converts the
// Families to what its own library needs. This package needs nothing but the standard library.
//
// # Formats
//
// Write knows the text format 0.0.4 of Prometheus and OpenMetrics 1.0.0. Negotiate chooses by the
// header Accept, as Prometheus expects.
package metric
