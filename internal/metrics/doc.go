// Package metrics turns what a node knows into its metrics: names, helps, labels and values. It is
// the one place for all of that. docs/metrics.md, the alerts and the dashboard follow it, and tests
// compare them.
//
// The root package fills an Input when somebody asks, and Families returns all metrics, those
// without a value too. So the list of names does not depend on what a node does.
//
// Names follow the rules of Prometheus: the prefix flotilla_, seconds and bytes, _total for
// counters, and _timestamp_seconds for moments. A moment that has not come is left out, and so is a
// length of time that is not known.
//
// What has a sample for each name of a certificate is bounded: the 100 that expire first have them.
package metrics
