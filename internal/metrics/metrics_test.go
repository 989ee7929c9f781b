package metrics

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/metric"
	"github.com/flotilla-ha/flotilla/status"
)

var update = flag.Bool("update", false, "write the list of metrics into docs/metrics.md")

const document = "../../docs/metrics.md"

// TestDocumented compares docs/metrics.md with the metrics.
func TestDocumented(t *testing.T) {
	var table strings.Builder
	table.WriteString("| metric | type | labels | what it means |\n|---|---|---|---|\n")
	for _, f := range Families(new(Input)) {
		labels := ""
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, labels, f.Help)
	}
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	const begin = "| metric | type |"
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		t.Fatalf("%s has no table that begins with %q", document, begin)
	}
	want := before + table.String() + "\n" + after
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("run the test with -update (-want +got):\n%s", diff)
	}
}

// at is the time of the tests.
func at() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC) }

// input returns a node with so many certificates.
func input(certificates int) *Input {
	in := &Input{Now: at(), Build: "v0.1.0", Go: "go1.26"}
	in.Status = status.Status{
		ID: "a1", Name: "alpha", Cluster: "c", Leader: "a1", Term: 4, Index: 99, Ready: true,
		Lease: status.Lease{Held: true, LeftMillis: 450},
		Members: []status.Member{
			{ID: "a1", Name: "alpha", Voter: true, Present: true, Supports: 2},
			{ID: "b1", Name: "bravo", Voter: true, Present: true},
			{ID: "c1", Name: "charlie", Voter: true},
			{ID: "d1", Name: "delta", Present: true},
		},
		Peers:   []status.Peer{{ID: "b1", Name: "bravo", Err: "refused", Differs: []string{"x"}}},
		Roles:   []status.Role{{Name: "jobs", Holder: "a1", Outage: 700 * time.Millisecond}, {Name: "vip", Holder: "b1", HoldDown: true}},
		Space:   []status.Space{{What: "records", Bytes: 10, Limit: 100}},
		Waiting: []status.Wait{{What: "writes wait", Since: at().Add(-7 * time.Second)}},
		Backup:  &status.Backup{Time: at().Add(-time.Hour), Every: 24 * time.Hour, Makes: true, Err: "full"},
	}
	for i := range certificates {
		in.Status.Certificates = append(in.Status.Certificates, status.Certificate{
			Name: fmt.Sprintf("host%05d.example.com", i), Issuer: "R11", NotBefore: at(), NotAfter: at().Add(time.Duration(certificates-i) * time.Hour),
			Renewal: at().Add(time.Hour),
		})
	}
	var h meter.Histogram
	h.Observe(3 * time.Millisecond)
	in.Writes.OK = h.Load()
	in.Cluster.Offsets = map[string]time.Duration{"b1": -1500 * time.Millisecond, "stranger": time.Second}
	in.Roles.Changes = []meter.Labelled{{Values: []string{"jobs", "it was free"}, Count: 2}}
	return in
}

func text(in *Input) string {
	var b strings.Builder
	if err := metric.Write(&b, metric.Text, slices.Values(Families(in))); err != nil {
		panic(err)
	}
	return b.String()
}

// Each line is what the input says.
func TestValues(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Input)
		want   []string
		not    []string // beginnings of lines that must not be there
	}{
		{name: "a node", want: []string{
			`flotilla_build_info{version="v0.1.0",goversion="go1.26"} 1`,
			`flotilla_node_info{name="alpha",id="a1",cluster="c"} 1`,
			`flotilla_ready 1`, `flotilla_has_leader 1`, `flotilla_is_leader 1`, `flotilla_lease_remaining_seconds 0.45`,
			`flotilla_members{raft="voter"} 3`, `flotilla_members{raft="nonvoter"} 1`, `flotilla_members_present 3`,
			`flotilla_failure_tolerance -1`, // of three voters one is absent, and one cannot be reached
			`flotilla_peer_reachable{peer="bravo"} 0`, `flotilla_peer_reachable{peer="charlie"} 0`, `flotilla_peer_reachable{peer="delta"} 1`,
			`flotilla_config_differences 1`, `flotilla_peer_clock_offset_seconds{peer="bravo"} -1.5`,
			`flotilla_peer_supported_version{peer="alpha"} 2`,
			`flotilla_role_held{role="jobs"} 1`, `flotilla_role_has_holder{role="vip"} 0`, `flotilla_role_outage_seconds{role="jobs"} 0.7`,
			`flotilla_role_changes_total{role="jobs",cause="it was free"} 2`,
			`flotilla_state_bytes{part="records"} 10`, `flotilla_state_limit_bytes{part="records"} 100`,
			`flotilla_waiting_seconds{what="writes wait"} 7`,
			`flotilla_backup_failing 1`, `flotilla_backup_interval_seconds 86400`, `flotilla_backup_verified_timestamp_seconds 1.777860121e+09`,
			`flotilla_write_seconds_bucket{result="ok",le="0.0025"} 0`, `flotilla_write_seconds_bucket{result="ok",le="0.005"} 1`,
			`flotilla_write_seconds_bucket{result="ok",le="+Inf"} 1`, `flotilla_write_seconds_sum{result="ok"} 0.003`, `flotilla_write_seconds_count{result="ok"} 1`,
		}, not: []string{"flotilla_renewal_check_timestamp_seconds ", "flotilla_snapshot_timestamp_seconds "}},
		{name: "two of one name, and one without", change: func(in *Input) {
			in.Status.Members[2].Name, in.Status.Members[3].Name = "bravo", ""
		}, want: []string{
			`flotilla_peer_reachable{peer="bravo (b1)"} 0`, `flotilla_peer_reachable{peer="bravo (c1)"} 0`, `flotilla_peer_reachable{peer="d1"} 1`,
			`flotilla_peer_clock_offset_seconds{peer="bravo (b1)"} -1.5`,
		}},
		{name: "a name that is no text", change: func(in *Input) {
			in.Status.Roles[0].Name, in.Status.Roles[1].Name = "a\xff", "a\xfe"
		}, want: []string{"flotilla_role_held{role=\"a\uFFFD\"} 1"}, not: []string{"flotilla_role_held{role=\"a\uFFFD\"} 0"}},
		{name: "a role twice", change: func(in *Input) {
			in.Status.Roles = append(in.Status.Roles, status.Role{Name: "jobs", Holder: "b1"})
		}, want: []string{`flotilla_role_held{role="jobs"} 1`}, not: []string{`flotilla_role_held{role="jobs"} 0`}},
		{name: "no backups", change: func(in *Input) { in.Status.Backup = nil },
			want: []string{`flotilla_backup_failing 0`, `flotilla_backup_interval_seconds 0`}, not: []string{"flotilla_backup_verified_timestamp_seconds "}},
		{name: "backups of others", change: func(in *Input) { in.Status.Backup.Makes = false }, want: []string{`flotilla_backup_interval_seconds 0`}},
		{name: "no leader", change: func(in *Input) { in.Status.Leader, in.Status.ID = "", "" }, want: []string{`flotilla_has_leader 0`, `flotilla_is_leader 0`}},
		{name: "failed", change: func(in *Input) { in.Status.Err, in.Status.Clock = "the disk is full", "wrong" },
			want: []string{`flotilla_failed 1`, `flotilla_clock_reliable 0`}},
		{name: "certificates", change: func(in *Input) {
			in.Status.Certificates = []status.Certificate{
				{Name: "a", Issuer: "R11", NotAfter: at().Add(time.Hour)}, {Name: "b", NotAfter: at().Add(-time.Hour), Err: "refused", Next: at(), Failures: 3},
				{Name: "c", SelfSigned: true}, {Name: "d"},
			}
		}, want: []string{
			`flotilla_certificates{state="valid"} 1`, `flotilla_certificates{state="expired"} 1`,
			`flotilla_certificates{state="self_signed"} 1`, `flotilla_certificates{state="missing"} 1`, `flotilla_certificates_failing 1`,
			`flotilla_certificate_not_after_timestamp_seconds{name="a",issuer="R11"} 1.777867321e+09`,
			`flotilla_order_next_timestamp_seconds{name="b"} 1.777863721e+09`, `flotilla_order_failures{name="b"} 3`,
			`flotilla_certificate_self_signed{name="c"} 1`,
		}, not: []string{`flotilla_certificate_not_after_timestamp_seconds{name="d"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := input(0)
			if tc.change != nil {
				tc.change(in)
			}
			lines := strings.Split(text(in), "\n")
			for _, want := range tc.want {
				if !slices.Contains(lines, want) {
					t.Errorf("there is no line %s", want)
				}
			}
			for _, not := range tc.not {
				if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, not) }); i >= 0 {
					t.Errorf("there is a line %s", lines[i])
				}
			}
		})
	}
}

// Of many certificates only the hundred have samples that expire first; all are counted.
func TestManyCertificates(t *testing.T) {
	out := text(input(1000))
	if got := strings.Count(out, "\nflotilla_certificate_not_after_timestamp_seconds{"); got != mostNames {
		t.Errorf("%d have samples", got)
	}
	for _, want := range []string{`{name="host00999.example.com"`, `{name="host00900.example.com"`, "\nflotilla_certificates{state=\"valid\"} 1000\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if strings.Contains(out, "host00899.example.com") {
		t.Error("one has samples that expires later")
	}
}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in := input(n)
			b.ReportMetric(float64(len(text(in))), "bytes")
			for b.Loop() {
				if err := metric.Write(io.Discard, metric.OpenMetrics, slices.Values(Families(in))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
