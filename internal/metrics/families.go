package metrics

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/metric"
)

// Families returns all metrics of a node.
func Families(in *Input) []metric.Family {
	b := &builder{in: in}
	b.node()
	b.cluster()
	b.writes()
	b.lease()
	b.roles()
	b.certificates()
	b.serving()
	b.upkeep()
	return b.all
}

// builder collects families.
type builder struct {
	in  *Input
	all []metric.Family
}

// add adds a family, and makes UTF-8 of all values, as a registry demands. Of samples with the same
// labels it keeps the first: Prometheus refuses a whole scrape that has two.
func (b *builder) add(kind metric.Type, name, help string, labels []string, samples ...metric.Sample) {
	for i, s := range samples {
		for j, v := range s.Values {
			if !utf8.ValidString(v) {
				s.Values = slices.Clone(s.Values)
				s.Values[j] = strings.ToValidUTF8(v, "\uFFFD")
				samples[i] = s
			}
		}
	}
	if len(samples) > 1 {
		known := make(map[string]bool, len(samples))
		samples = slices.DeleteFunc(samples, func(s metric.Sample) bool {
			key := strings.Join(s.Values, "\xff")
			again := known[key]
			known[key] = true
			return again
		})
	}
	b.all = append(b.all, metric.Family{Name: "flotilla_" + name, Help: help, Type: kind, Labels: labels, Samples: samples})
}

// gauge adds a number.
func (b *builder) gauge(name, help string, value float64) {
	b.add(metric.Gauge, name, help, nil, metric.Sample{Value: value})
}

// truth adds 1 for true, else 0.
func (b *builder) truth(name, help string, value bool) { b.gauge(name, help, number(value)) }

// count adds a number that only rises.
func (b *builder) count(name, help string, value uint64) {
	b.add(metric.Counter, name, help, nil, metric.Sample{Value: float64(value)})
}

// counts adds numbers that only rise, by the values of labels.
func (b *builder) counts(name, help string, labels []string, all []meter.Labelled) {
	samples := make([]metric.Sample, len(all))
	for i, one := range all {
		samples[i] = metric.Sample{Values: one.Values, Value: float64(one.Count)}
	}
	b.add(metric.Counter, name, help, labels, samples...)
}

// moment adds a point in time, unless it is zero.
func (b *builder) moment(name, help string, t time.Time) {
	if t.IsZero() {
		b.add(metric.Gauge, name, help, nil)
		return
	}
	b.gauge(name, help, unix(t))
}

// histogram adds lengths of time.
func (b *builder) histogram(name, help string, o meter.Observed) {
	b.add(metric.Histogram, name, help, nil, metric.Sample{Histogram: observations(o)})
}

func observations(o meter.Observed) *metric.Observations {
	out := &metric.Observations{Count: o.Count, Sum: o.Sum.Seconds()}
	for _, bucket := range o.Buckets {
		out.Buckets = append(out.Buckets, metric.Bucket{Bound: bucket.Bound.Seconds(), Count: bucket.Count})
	}
	return out
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
