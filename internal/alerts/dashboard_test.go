package alerts_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest/testca"
)

// dashboard is one of Grafana, with what the tests look at.
type dashboard struct {
	Editable   bool
	Templating struct{ List []variable }
	Panels     []panel
}

type variable struct {
	Name, Label, Type string
	Datasource        source
	Query             any
	Refresh           int
	Multi, IncludeAll bool
	AllValue          string
}

type source struct{ UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct {
		Defaults struct{ Unit string }
	}
	Targets []target
	Panels  []panel // of a row that is collapsed
}

type target struct {
	Expr    string
	Instant bool
}

// board returns the dashboard of the repository.
func board(t *testing.T) *dashboard {
	t.Helper()
	d := new(dashboard)
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana/flotilla.json")), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// expressions yields the targets with the titles of their panels.
func (d *dashboard) expressions(yield func(string, target) bool) {
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			if !yield(p.Title, t) {
				return
			}
		}
	}
}

// documented returns the types of the metrics in docs/metrics.md, by their names.
func documented(t *testing.T) map[string]string {
	t.Helper()
	types := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(flotilla_[a-z_]+)` \\| (\\w+) \\|").FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		types[m[1]] = m[2]
	}
	return types
}

// metricName matches the names of metrics in a text, and of what rules record.
const metricName = `(?:[a-z]+:)?\bflotilla_[a-z_]+(?::[a-z0-9]+)?`

// family returns the metric of a name in an expression: a histogram has more names than its own.
func family(types map[string]string, name string) string {
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && types[base] == "histogram" {
			return base
		}
	}
	return name
}

// strangers returns the names of metrics in a text that nodes do not have, and that the text does
// not record.
func strangers(types map[string]string, text string) (names []string) {
	for _, name := range regexp.MustCompile(metricName).FindAllString(text, -1) {
		if strings.Contains(text, "record: "+name+"\n") {
			continue
		}
		if name = family(types, name); types[name] == "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// What the dashboard, the alerts and the documents name is what nodes have.
func TestMetricsExist(t *testing.T) {
	types := documented(t)
	if len(types) < 60 {
		t.Fatalf("docs/metrics.md has %d metrics in its table", len(types))
	}
	got := strangers(types, "flotilla_ready + flotilla_unready, flotilla_election_seconds_sum, flotilla_term_sum")
	if want := []string{"flotilla_unready", "flotilla_term_sum"}; !slices.Equal(got, want) {
		t.Errorf("unknown are %v, want %v", got, want)
	}
	files := []string{"deploy/grafana/flotilla.json", "deploy/prometheus/alerts.yml"}
	documents, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("docs has %d documents: %v", len(documents), err)
	}
	for _, path := range documents {
		files = append(files, "docs/"+filepath.Base(path))
	}
	for _, path := range files {
		if names := strangers(types, read(t, path)); len(names) > 0 {
			t.Errorf("%s names what nodes do not have: %v", path, names)
		}
	}
	shown := read(t, files[0])
	for name := range types {
		if !regexp.MustCompile(`\b` + name + `(_bucket|_count|_sum)?\{`).MatchString(shown) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// lint returns what is wrong with a dashboard: the rules of Grafana's dashboard-linter that apply,
// and some more. That linter has too many dependencies for this module.
func lint(d *dashboard, types map[string]string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if d.Editable {
		fault("it is editable")
	}
	lintVariables(d, fault)
	ids := make(map[int]bool)
	for i, p := range d.Panels {
		at := func(format string, args ...any) { fault("%q %s", p.Title, fmt.Sprintf(format, args...)) }
		if ids[p.ID] {
			at("has an ID that another panel has")
		}
		ids[p.ID] = true
		if p.GridPos.W <= 0 || p.GridPos.H <= 0 || p.GridPos.X+p.GridPos.W > 24 || slices.ContainsFunc(d.Panels[:i], p.overlaps) {
			at("has a bad place")
		}
		p.lint(at)
		for _, t := range p.Targets {
			t.lint(types, at)
		}
	}
	return faults
}

func (p panel) overlaps(q panel) bool {
	a, b := p.GridPos, q.GridPos
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

func lintVariables(d *dashboard, fault func(string, ...any)) {
	want := map[string]string{
		"datasource": "prometheus", "job": "label_values(flotilla_build_info, job)",
		"instance": `label_values(flotilla_build_info{job=~"$job"}, instance)`,
	}
	labels := map[string]string{"datasource": "Data source", "job": "Job", "instance": "Instance"}
	for _, v := range d.Templating.List {
		query, ok := v.Query.(string)
		if m, isMap := v.Query.(map[string]any); isMap {
			query, ok = m["query"].(string)
		}
		if !ok || query != want[v.Name] {
			fault("the variable %s has the query %q", v.Name, query)
		}
		delete(want, v.Name)
		if v.Label != labels[v.Name] {
			fault("the variable %s has the label %q", v.Name, v.Label)
		}
		switch {
		case v.Name == "datasource":
			if v.Type != "datasource" {
				fault("the variable %s is of type %q", v.Name, v.Type)
			}
		case v.Type != "query" || v.Datasource.UID != "${datasource}":
			fault("the variable %s is no query of the data source", v.Name)
		case !v.Multi || !v.IncludeAll || v.AllValue != ".+":
			fault("the variable %s does not allow several values, or all", v.Name)
		case v.Refresh != 2: // when the range of time changes
			fault("the variable %s is not refreshed", v.Name)
		}
	}
	for name := range want {
		fault("there is no variable %s", name)
	}
}

func (p panel) lint(fault func(string, ...any)) {
	if p.Title == "" {
		fault("has no title")
	}
	if p.Type == "row" {
		if len(p.Panels) > 0 {
			fault("is collapsed: its panels are not checked")
		}
		return
	}
	if !slices.Contains([]string{"stat", "state-timeline", "table", "timeseries"}, p.Type) {
		fault("is of type %q", p.Type)
	}
	if p.Description == "" {
		fault("has no description")
	}
	if !slices.Contains([]string{"bytes", "dtdhms", "none", "ops", "percentunit", "s", "short"}, p.FieldConfig.Defaults.Unit) {
		fault("has the unit %q", p.FieldConfig.Defaults.Unit)
	}
	if p.Datasource.UID != "${datasource}" {
		fault("does not use the variable datasource")
	}
	if len(p.Targets) == 0 {
		fault("has no targets")
	}
}

func (t target) lint(types map[string]string, fault func(string, ...any)) {
	const matchers = `{job=~"$job", instance=~"$instance"`
	for _, at := range regexp.MustCompile(metricName+`|\bup\b`).FindAllStringIndex(t.Expr, -1) {
		name, before, after := t.Expr[at[0]:at[1]], t.Expr[:at[0]], t.Expr[at[1]:]
		if !strings.HasPrefix(after, matchers) {
			fault("asks for %s of all jobs or instances", name)
		}
		base := family(types, name)
		if types[base] != "counter" && types[base] != "histogram" {
			continue
		}
		_, after, _ = strings.Cut(after, "}")
		if !strings.HasPrefix(after, "[") || !strings.HasSuffix(before, "rate(") && !strings.HasSuffix(before, "increase(") {
			fault("shows %s without rate or increase", name)
		}
	}
	others := regexp.MustCompile(`last_over_time\([^()]*\[\$__range\]\)`).ReplaceAllString(t.Expr, "")
	for _, span := range regexp.MustCompile(`\[[^\]]*\]`).FindAllString(others, -1) {
		if span != "[$__rate_interval]" {
			fault("uses %s", span)
		}
	}
}

// fill replaces the variables in an expression.
func fill(expression, job, interval string) string {
	return strings.NewReplacer("$job", job, "$instance", ".+", "$__rate_interval", interval, "$__range", "1h").Replace(expression)
}

// parsed has promtool parse all expressions. It returns its complaints.
func parsed(t *testing.T, d *dashboard) string {
	t.Helper()
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	n := 0
	for _, target := range d.expressions {
		n++
		fmt.Fprintf(&rules, "      - {record: 'r%d', expr: '%s'}\n", n, fill(target.Expr, "test", "10s"))
	}
	path := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "check", "rules", path); err != nil {
		return out
	}
	return ""
}

func TestDashboard(t *testing.T) {
	d := board(t)
	for _, f := range lint(d, documented(t)) {
		t.Error(f)
	}
	if out := parsed(t, d); out != "" {
		t.Error(out)
	}
}

// Each rule finds what is against it.
func TestDashboardRules(t *testing.T) {
	types := documented(t)
	for _, tc := range []struct {
		want   string // part of the only fault
		change func(d *dashboard)
	}{
		{`editable`, func(d *dashboard) { d.Editable = true }},
		{`no variable job`, func(d *dashboard) { d.Templating.List = slices.Delete(d.Templating.List, 1, 2) }},
		{`datasource is of type`, func(d *dashboard) { d.Templating.List[0].Type = "constant" }},
		{`datasource has the query "loki"`, func(d *dashboard) { d.Templating.List[0].Query = "loki" }},
		{`job is no query`, func(d *dashboard) { d.Templating.List[1].Datasource.UID = "other" }},
		{`job does not allow several`, func(d *dashboard) { d.Templating.List[1].Multi = false }},
		{`instance does not allow several`, func(d *dashboard) { d.Templating.List[2].AllValue = ".*" }},
		{`instance has the query "label_values(up, instance)"`, func(d *dashboard) { d.Templating.List[2].Query = "label_values(up, instance)" }},
		{`instance has the label ""`, func(d *dashboard) { d.Templating.List[2].Label = "" }},
		{`instance is not refreshed`, func(d *dashboard) { d.Templating.List[2].Refresh = 1 }},
		{`another panel has`, func(d *dashboard) { d.Panels[1].ID = d.Panels[0].ID }},
		{`bad place`, func(d *dashboard) { d.Panels[1].GridPos.Y = 0 }},
		{`bad place`, func(d *dashboard) { d.Panels[1].GridPos.X = 20 }},
		{`is collapsed`, func(d *dashboard) { d.Panels[0].Panels = d.Panels[1:2] }},
		{`type "graph"`, func(d *dashboard) { d.Panels[1].Type = "graph" }},
		{`no title`, func(d *dashboard) { d.Panels[1].Title = "" }},
		{`no description`, func(d *dashboard) { d.Panels[1].Description = "" }},
		{`unit ""`, func(d *dashboard) { d.Panels[1].FieldConfig.Defaults.Unit = "" }},
		{`variable datasource`, func(d *dashboard) { d.Panels[1].Datasource.UID = "abc" }},
		{`no targets`, func(d *dashboard) { d.Panels[1].Targets = nil }},
		{`flotilla_term of all jobs`, func(d *dashboard) { d.Panels[1].Targets[0].Expr = `flotilla_term` }},
		{`flotilla_term of all jobs`, func(d *dashboard) { d.Panels[1].Targets[0].Expr = `flotilla_term{job=~"$job"}` }},
		{`flotilla_term of all jobs`, func(d *dashboard) { d.Panels[1].Targets[0].Expr = `flotilla_term{job="$job", instance=~"$instance"}` }},
		{`up of all jobs`, func(d *dashboard) { d.Panels[1].Targets[0].Expr = `sum(up)` }},
		{`flotilla_events_total without rate`, func(d *dashboard) {
			d.Panels[1].Targets[0].Expr = `flotilla_events_total{job=~"$job", instance=~"$instance"}`
		}},
		{`flotilla_order_seconds_sum without rate`, func(d *dashboard) {
			d.Panels[1].Targets[0].Expr = `sum_over_time(flotilla_order_seconds_sum{job=~"$job", instance=~"$instance"}[$__rate_interval])`
		}},
		{`uses [$__range]`, func(d *dashboard) {
			d.Panels[1].Targets[0].Expr = `rate(flotilla_events_total{job=~"$job", instance=~"$instance"}[$__range])`
		}},
		{`uses [5m]`, func(d *dashboard) {
			d.Panels[1].Targets[0].Expr = `rate(flotilla_events_total{job=~"$job", instance=~"$instance"}[5m])`
		}},
	} {
		t.Run(tc.want, func(t *testing.T) {
			d := small(t)
			if faults := lint(d, types); len(faults) > 0 {
				t.Fatalf("before the change: %v", faults)
			}
			tc.change(d)
			if faults := lint(d, types); len(faults) != 1 || !strings.Contains(faults[0], tc.want) {
				t.Errorf("the faults are %q, want one with %q", faults, tc.want)
			}
		})
	}
	t.Run("a wrong expression", func(t *testing.T) {
		d := small(t)
		if out := parsed(t, d); out != "" {
			t.Fatal(out)
		}
		d.Panels[1].Targets[0].Expr = `sum(flotilla_term{job=~"$job", instance=~"$instance"}`
		if out := parsed(t, d); !strings.Contains(out, "unclosed left parenthesis") {
			t.Errorf("promtool says %q", out)
		}
	})
}

// small returns a dashboard of a row and a panel, with the variables of the real one.
func small(t *testing.T) *dashboard {
	t.Helper()
	d := board(t)
	d.Panels = slices.Clone(d.Panels[:2])
	d.Panels[1].GridPos.X, d.Panels[1].GridPos.W = 0, 12
	d.Panels[1].Targets = []target{{Expr: `flotilla_term{job=~"$job", instance=~"$instance"}`}}
	return d
}

// numbers reports whether an expression has a value that is a number: at present, or at any moment
// since then.
func (p *server) numbers(expression string, since time.Time, instant bool) bool {
	p.t.Helper()
	path := "query?query=" + url.QueryEscape(expression)
	if !instant {
		end := time.Now().Unix() + 1 // so that the newest sample is in it
		path = fmt.Sprintf("query_range?query=%s&start=%d&end=%d&step=1", url.QueryEscape(expression), since.Unix(), end)
	}
	var got struct {
		Result []struct {
			Value  []any
			Values [][]any
		}
	}
	p.ask(path, &got)
	for _, r := range got.Result {
		for _, v := range append(r.Values, r.Value) {
			if len(v) < 2 {
				continue
			}
			if f, err := strconv.ParseFloat(fmt.Sprint(v[1]), 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
				return true
			}
		}
	}
	return false
}

// Each expression of the dashboard has numbers in a cluster in which everything happens once.
func TestDashboardShows(t *testing.T) {
	if !*long {
		t.Skip("it takes a minute: it runs with -long")
	}
	command(t, "prometheus")
	began := time.Now()
	s := build(t, world{authority: true, backups: true})
	s.prom = serve(t, setting{rules: text(t), targets: s.targets, listen: free(t, 1)[0]})
	s.everything()

	never := map[string]string{"OCSP": "the authority of the tests has none"}
	for title, target := range board(t).expressions {
		shows := s.prom.numbers(fill(target.Expr, "test", "10s"), began, target.Instant)
		if reason, ok := never[title]; ok {
			if shows {
				t.Errorf("%s has numbers, although %s", title, reason)
			}
			continue
		}
		if !shows {
			t.Errorf("%s has no numbers: %s", title, target.Expr)
		}
	}
}

// everything makes happen what the dashboard shows.
func (s *site) everything() {
	s.Helper()
	leader, rest := s.leader()
	s.load(rest[0])
	s.visit()

	// A snapshot is taken when the log is long.
	s.until("there is a snapshot", time.Minute, func() bool {
		s.write(leader, "a", 256<<10)
		n, _ := s.prom.samples(`flotilla_snapshot_timestamp_seconds`)
		return n > 0
	})

	// A node with another secret is refused, and waits.
	i := s.c.Add(func(_ int, cfg *flotilla.Config) {
		cfg.Secrets, cfg.Drain.Grace = []flotilla.Secret{flotilla.NewSecret()}, -1
		cfg.TLS.Configure = s.ca.Configure
	})
	s.target(i)
	s.until("the stranger waits and is refused", time.Minute, func() bool {
		waits, _ := s.prom.samples(`flotilla_waiting_seconds`)
		refused, _ := s.prom.samples(`flotilla_peer_rejected_total`)
		return waits > 0 && refused > 0
	})
	s.targets = s.targets[:i]
	s.prom.watch(s.targets)
	s.c.Kill(i)

	for _, i := range rest {
		s.move(leader, s.c.Config(i).Name)
	}
	s.c.Stop(leader)
	s.again(leader)
	s.visit()

	// A certificate is renewed. It is due again at once, and the authority refuses that.
	s.due(0)
	s.until("the certificate is renewed", time.Minute, func() bool {
		_, n := s.prom.samples(`increase(flotilla_order_seconds_count[10s])`)
		return n > 0
	})
	s.answer(func(r testca.Request) *testca.Refusal {
		if r.Op == testca.NewOrder {
			return testca.Problem(http.StatusForbidden, "rejectedIdentifier", "no", "")
		}
		return nil
	})
	for _, expression := range []string{`flotilla_order_next_timestamp_seconds`, `flotilla_backup_verified_timestamp_seconds`} {
		s.until(expression+" is there", 3*time.Minute, func() bool {
			n, _ := s.prom.samples(expression)
			return n > 0
		})
	}
}

// visit asks the cluster for pages, for some scrapes. Each has a connection of its own.
func (s *site) visit() {
	s.Helper()
	client := s.c.Client()
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		s.Fatalf("the transport is a %T", client.Transport)
	}
	transport.TLSClientConfig.RootCAs, transport.DisableKeepAlives = s.ca.Roots(), true
	answered := 0
	s.until("there are 40 pages", time.Minute, func() bool { // at first certificates are self-signed
		resp, err := client.Get("https://" + s.name)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			answered++
		}
		return answered == 40
	})
}
