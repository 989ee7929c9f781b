package metrics_test

import (
	"bytes"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/metric"
	"github.com/flotilla-ha/flotilla/metrics"
)

func Example() {
	// A node without any configuration is a cluster in memory, for development.
	ctx := exampleContext()
	node, err := flotilla.Open(ctx, flotilla.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	if err := node.Ready(ctx); err != nil {
		fmt.Println(err)
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New(node))
	families, err := registry.Gather()
	for _, f := range families {
		if f.GetName() == "flotilla_ready" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	fmt.Println(err)
	// Output:
	// flotilla_ready 1
	// <nil>
}

// open returns a node that is ready.
func open(t *testing.T) *flotilla.Node {
	t.Helper()
	node, err := flotilla.Open(t.Context(), flotilla.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	if err := node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return node
}

func get(h http.Handler, path, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

// parse reads the text format.
func parse(t *testing.T, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	found, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return found
}

// flat returns all samples by name and sorted labels, with all that is said of them.
func flat(all map[string]*dto.MetricFamily) map[string]string {
	out := make(map[string]string)
	for name, f := range all {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(labels)
			out[fmt.Sprint(name, labels)] = fmt.Sprint(f.GetType(), f.GetHelp(), m.GetGauge().GetValue(), m.GetCounter().GetValue(), m.GetHistogram())
		}
	}
	return out
}

// fixed is what a node had at one moment.
type fixed []metric.Family

// Metrics implements metrics.Source.
func (f fixed) Metrics() iter.Seq[metric.Family] { return slices.Values(f) }

// The text of the health port and the Collector have the same metrics: names, types, helps, labels
// and values.
func TestSameMetrics(t *testing.T) {
	node := open(t)
	now := fixed(slices.Collect(node.Metrics()))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New(now))
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := metric.Write(&text, metric.Text, now.Metrics()); err != nil {
		t.Fatal(err)
	}
	var registered bytes.Buffer
	for _, f := range gathered {
		if _, err := expfmt.MetricFamilyToText(&registered, f); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(flat(parse(t, text.Bytes())), flat(parse(t, registered.Bytes()))); diff != "" {
		t.Errorf("(-text +Collector):\n%s", diff)
	}
	var names, shown []string
	for _, f := range now {
		names = append(names, f.Name)
	}
	for line := range strings.Lines(get(node.Health(), "/metrics", "text/plain").Body.String()) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			shown = append(shown, strings.Fields(rest)[0])
		}
	}
	if diff := cmp.Diff(names, shown); diff != "" || len(names) < 60 {
		t.Errorf("the health port has other metrics (-node +port):\n%s", diff)
	}
}

// promtool finds nothing to say about the text of the health port and of the Collector.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	node := open(t)
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New(node))
	for name, text := range map[string]string{
		"health port": get(node.Health(), "/metrics", "text/plain").Body.String(),
		"collector":   get(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), "/", "text/plain").Body.String(),
	} {
		t.Run(name, func(t *testing.T) {
			c := exec.CommandContext(t.Context(), promtool, "check", "metrics")
			c.Stdin = strings.NewReader(text)
			if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// OpenMetrics has the same samples as the text format.
func TestOpenMetrics(t *testing.T) {
	rec := get(open(t).Health(), "/metrics", "application/openmetrics-text;version=1.0.0")
	if got := rec.Header().Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text; version=1.0.0") {
		t.Errorf("the type is %q", got)
	}
	text := rec.Body.String()
	if !strings.HasSuffix(text, "\n# EOF\n") || !strings.Contains(text, "# TYPE flotilla_leader_changes counter\nflotilla_leader_changes_total 0\n") {
		t.Errorf("it is\n%s", text)
	}
}
