package metric_test

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/metric"
)

func families() []metric.Family {
	return []metric.Family{
		{Name: "a_total", Help: "Things.", Type: metric.Counter, Labels: []string{"kind"}, Samples: []metric.Sample{
			{Values: []string{"plain"}, Value: 3},
			{Values: []string{"a\\b\"c\nd\xff"}, Value: 1e21},
		}},
		{Name: "b_seconds", Help: "A \"quoted\" \\ help.", Type: metric.Gauge, Samples: []metric.Sample{{Value: 0.25}}},
		{Name: "none", Help: "Nothing yet.", Type: metric.Gauge, Labels: []string{"x"}},
		{Name: "h_seconds", Help: "Times.", Type: metric.Histogram, Labels: []string{"r"}, Samples: []metric.Sample{{
			Values: []string{"ok"}, Histogram: &metric.Observations{Buckets: []metric.Bucket{{0.5, 1}, {1, 2}}, Count: 3, Sum: 7.5},
		}}},
		{Name: "odd", Help: "Limits.", Type: metric.Gauge, Labels: []string{"x"}, Samples: []metric.Sample{
			{Values: []string{""}, Value: math.Inf(1)}, {Values: []string{"n"}, Value: math.Inf(-1)}, {Values: []string{"q"}, Value: math.NaN()},
		}},
	}
}

func Example() {
	up := metric.Family{
		Name: "flotilla_ready", Help: "1 if the node is ready.", Type: metric.Gauge, Samples: []metric.Sample{{Value: 1}},
	}
	metric.Write(os.Stdout, metric.OpenMetrics, slices.Values([]metric.Family{up}))
	// Output:
	// # HELP flotilla_ready 1 if the node is ready.
	// # TYPE flotilla_ready gauge
	// flotilla_ready 1
	// # EOF
}

// Both formats have the same samples; names of counters and the end differ.
func TestWrite(t *testing.T) {
	const samples = `a_total{kind="plain"} 3
a_total{kind="a\\b\"c\nd` + "\uFFFD" + `"} 1e+21
# HELP b_seconds %s
# TYPE b_seconds gauge
b_seconds 0.25
# HELP none Nothing yet.
# TYPE none gauge
# HELP h_seconds Times.
# TYPE h_seconds histogram
h_seconds_bucket{r="ok",le="0.5"} 1
h_seconds_bucket{r="ok",le="1"} 2
h_seconds_bucket{r="ok",le="+Inf"} 3
h_seconds_sum{r="ok"} 7.5
h_seconds_count{r="ok"} 3
# HELP odd Limits.
# TYPE odd gauge
odd{x=""} +Inf
odd{x="n"} -Inf
odd{x="q"} NaN
`
	for _, tc := range []struct {
		format metric.Format
		want   string
	}{
		{metric.Text, "# HELP a_total Things.\n# TYPE a_total counter\n" + fmt.Sprintf(samples, `A "quoted" \\ help.`)},
		{metric.OpenMetrics, "# HELP a Things.\n# TYPE a counter\n" + fmt.Sprintf(samples, `A \"quoted\" \\ help.`) + "# EOF\n"},
	} {
		t.Run(tc.format.ContentType(), func(t *testing.T) {
			var b strings.Builder
			if err := metric.Write(&b, tc.format, slices.Values(families())); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, b.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestNegotiate(t *testing.T) {
	const prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
	for accept, want := range map[string]metric.Format{
		"":                                   metric.Text,
		"*/*":                                metric.Text,
		"text/html,*/*;q=0.1":                metric.Text,
		prometheus:                           metric.OpenMetrics,
		"application/openmetrics-text":       metric.OpenMetrics,
		"application/openmetrics-text;q=0":   metric.Text,
		"application/openmetrics-text;q=x":   metric.Text,
		"application/openmetrics-text;q=NaN": metric.Text,
		"application/openmetrics-text;version=2.0.0,text/plain":                                      metric.Text,
		"application/vnd.google.protobuf;q=0.9,application/openmetrics-text;q=0.5,text/plain;q=0.4":  metric.OpenMetrics,
		"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.9,application/openmetrics-text;q=0.1,;;;": metric.OpenMetrics,
	} {
		if got := metric.Negotiate(accept); got != want {
			t.Errorf("Accept: %s leads to %s", accept, got.ContentType())
		}
	}
}

// A write that fails is reported.
func TestWriteFails(t *testing.T) {
	if err := metric.Write(full{}, metric.Text, slices.Values(families())); err != errFull {
		t.Errorf("the error is %v", err)
	}
}

var errFull = fmt.Errorf("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// Whatever the values of labels are, each sample is a line.
func FuzzWrite(f *testing.F) {
	f.Add("a", "b")
	f.Add("\"\n\\", "\x00\xff\u2028")
	f.Fuzz(func(t *testing.T, a, b string) {
		one := metric.Family{
			Name: "x", Help: b, Type: metric.Gauge, Labels: []string{"l", "m"}, Samples: []metric.Sample{{Values: []string{a, b}, Value: 1}},
		}
		var out strings.Builder
		if err := metric.Write(&out, metric.OpenMetrics, slices.Values([]metric.Family{one})); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.String(), "\n")
		if len(lines) != 5 || !strings.HasPrefix(lines[2], `x{l="`) || !strings.HasSuffix(lines[2], `"} 1`) {
			t.Errorf("it writes %q", out.String())
		}
	})
}
