package alerts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/freeport"
)

// speed is how much faster than in production the rules are evaluated in these tests: each duration
// in them is divided by it. Scrapes come each second, and not each half minute.
const speed = 30

// rule is a rule as Prometheus reads it.
type rule struct {
	Type      string  `json:"type"`
	Name      string  `json:"name"`
	Duration  float64 `json:"duration"` // seconds
	LastError string  `json:"lastError"`
}

// wait returns what the rule waits for, as it is evaluated.
func (r rule) wait() time.Duration { return time.Duration(r.Duration * float64(time.Second)) }

// text returns the rules of the repository.
func text(t *testing.T) string {
	t.Helper()
	return read(t, "deploy/prometheus/alerts.yml")
}

// faster returns rules whose durations are divided by speed. What stands for another thing in the
// tests is replaced before.
func faster(t *testing.T, rules string, replaced map[string]string) string {
	t.Helper()
	for old, now := range replaced {
		if strings.Count(rules, old) != 1 {
			t.Fatalf("%q is %d times in the rules, want once", old, strings.Count(rules, old))
		}
		rules = strings.Replace(rules, old, now, 1)
	}
	durations := regexp.MustCompile(`(for: |\[)(\d+)([mhd])`)
	return durations.ReplaceAllStringFunc(rules, func(found string) string {
		m := durations.FindStringSubmatch(found)
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		unit := map[string]int{"m": 60, "h": 3600, "d": 86400}[m[3]]
		return fmt.Sprintf("%s%ds", m[1], n*unit/speed)
	})
}

// server is a Prometheus.
type server struct {
	t      *testing.T
	dir    string // of its files
	url    string
	client *http.Client
}

// command returns the path of a program of Prometheus. The test skips without it.
func command(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s here (Debian: apt-get install prometheus): %v", name, err)
	}
	return path
}

// setting is how a Prometheus is started.
type setting struct {
	rules   string
	targets []string // host:port
	listen  string   // host:port

	// start starts the command somewhere else than here, and dial connects to it. Nil: here.
	start func(*exec.Cmd) error
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)
}

// serve starts a Prometheus that asks the targets each second, as the job "test".
func serve(t *testing.T, s setting) *server {
	t.Helper()
	path, dir := command(t, "prometheus"), t.TempDir()
	p := &server{t: t, dir: dir, url: "http://" + s.listen, client: &http.Client{Timeout: 10 * time.Second}}
	p.watch(s.targets)
	config := "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n" +
		"rule_files: [alerts.yml]\n" +
		"scrape_configs:\n  - job_name: test\n    file_sd_configs:\n      - files: [targets.json]\n"
	for name, text := range map[string]string{"prometheus.yml": config, "alerts.yml": s.rules} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+s.listen)
	cmd.Stdout, cmd.Stderr = log, log
	if s.start == nil {
		s.start = (*exec.Cmd).Start
		t.Cleanup(func() {
			if cmd.Process != nil {
				cmd.Process.Kill()
				cmd.Wait()
			}
		})
	}
	if err := s.start(cmd); err != nil {
		t.Fatal(err)
	}
	if s.dial != nil {
		p.client.Transport = &http.Transport{DialContext: s.dial}
	}
	for began := time.Now(); ; <-time.After(50 * time.Millisecond) {
		_, err := p.get("/-/ready")
		if err == nil {
			break
		}
		if time.Since(began) > time.Minute {
			said, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("Prometheus does not start: %v\n%s", err, said)
		}
	}
	return p
}

// watch sets the targets.
func (p *server) watch(targets []string) {
	p.t.Helper()
	text, err := json.Marshal([]map[string][]string{{"targets": targets}})
	if err == nil {
		name := filepath.Join(p.dir, "targets.json")
		err = errors.Join(os.WriteFile(name+".new", text, 0o600), os.Rename(name+".new", name))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// get returns an answer of Prometheus.
func (p *server) get(path string) ([]byte, error) {
	resp, err := p.client.Get(p.url + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return body, err
}

// ask has Prometheus answer in its API.
func (p *server) ask(path string, data any) {
	p.t.Helper()
	body, err := p.get("/api/v1/" + path)
	if err == nil {
		err = json.Unmarshal(body, &struct{ Data any }{data})
	}
	if err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
}

// rules returns the alerts. It is an error of the test if a rule cannot be evaluated.
func (p *server) rules() map[string]rule {
	p.t.Helper()
	var got struct{ Groups []struct{ Rules []rule } }
	p.ask("rules", &got)
	all := make(map[string]rule)
	for _, g := range got.Groups {
		for _, r := range g.Rules {
			if r.LastError != "" {
				p.t.Errorf("%s cannot be evaluated: %s", r.Name, r.LastError)
			}
			if r.Type == "alerting" {
				all[r.Name] = r
			}
		}
	}
	return all
}

// rulesOf returns what a Prometheus reads in a text.
func rulesOf(t *testing.T, text string) map[string]rule {
	t.Helper()
	return serve(t, setting{rules: text, listen: free(t, 1)[0]}).rules()
}

// firing returns the names of the alerts that fire, and of those that will soon.
func (p *server) firing() (fires, pends []string) {
	p.t.Helper()
	var got struct {
		Alerts []struct {
			State               string
			Labels, Annotations map[string]string
		}
	}
	p.ask("alerts", &got)
	for _, a := range got.Alerts {
		for what, said := range a.Annotations {
			if strings.Contains(said, "<no value>") || strings.Contains(said, "<error") {
				p.t.Errorf("the %s of %s: %s", what, a.Labels["alertname"], said)
			}
		}
		if a.State == "firing" {
			fires = append(fires, a.Labels["alertname"])
		} else {
			pends = append(pends, a.Labels["alertname"])
		}
	}
	slices.Sort(fires)
	slices.Sort(pends)
	return slices.Compact(fires), slices.Compact(pends)
}

// fired returns the names of the alerts that have fired within the last hour.
func (p *server) fired() (names []string) {
	p.t.Helper()
	var got struct {
		Result []struct{ Metric map[string]string }
	}
	p.ask("query?query="+url.QueryEscape(`count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))`), &got)
	for _, r := range got.Result {
		names = append(names, r.Metric["alertname"])
	}
	return names
}

// samples returns how many samples an expression has, and their greatest value.
func (p *server) samples(expression string) (n int, most float64) {
	p.t.Helper()
	var got struct{ Result []struct{ Value [2]any } }
	p.ask("query?query="+url.QueryEscape(expression), &got)
	for _, r := range got.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			p.t.Fatalf("%s: %v", expression, err)
		}
		if n == 0 || v > most {
			most = v
		}
		n++
	}
	return n, most
}

// free returns n addresses on loopback at which nobody listens.
func free(t *testing.T, n int) []string {
	t.Helper()
	addrs, err := freeport.Addrs(n)
	if err != nil {
		t.Fatal(err)
	}
	return addrs
}

// promtool runs a check, and returns what it says.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(command(t, "promtool"), args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}
