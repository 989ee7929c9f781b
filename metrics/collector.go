// Package metrics registers the metrics of a flotilla node with Prometheus.
//
// It is a module of its own, so that programs that do not need it have no client library of
// Prometheus among their dependencies. The names are those of /metrics on the health port, which
// needs no registry at all:
//
//	registry.MustRegister(metrics.New(node))
//
// OpenTelemetry takes them from the registry by its bridge for Prometheus.
package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flotilla-ha/flotilla/metric"
)

// Source has metrics. *flotilla.Node is one.
type Source interface {
	Metrics() iter.Seq[metric.Family]
}

// New returns a Collector of the node's metrics. It may be registered before the node is ready. Two
// nodes in one program need registries of their own, or labels that tell them apart: see
// prometheus.WrapRegistererWith.
func New(node Source) prometheus.Collector { return collector{node} }

type collector struct{ node Source }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for f := range c.node.Metrics() {
		out <- descOf(&f)
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for f := range c.node.Metrics() {
		desc := descOf(&f)
		for i := range f.Samples {
			m, err := metricOf(desc, f.Type, &f.Samples[i])
			if err != nil {
				m = prometheus.NewInvalidMetric(desc, err)
			}
			out <- m
		}
	}
}

func descOf(f *metric.Family) *prometheus.Desc {
	return prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
}

func metricOf(desc *prometheus.Desc, kind metric.Type, s *metric.Sample) (prometheus.Metric, error) {
	if kind == metric.Histogram {
		buckets := make(map[float64]uint64, len(s.Histogram.Buckets))
		for _, b := range s.Histogram.Buckets {
			buckets[b.Bound] = b.Count
		}
		return prometheus.NewConstHistogram(desc, s.Histogram.Count, s.Histogram.Sum, buckets, s.Values...)
	}
	valueType := prometheus.GaugeValue
	if kind == metric.Counter {
		valueType = prometheus.CounterValue
	}
	return prometheus.NewConstMetric(desc, valueType, s.Value, s.Values...)
}
