package alerts_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// repository is the place of the repository's root.
var repository = filepath.Join("..", "..")

// read returns a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(repository, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// names returns the names of the alerts in a text, each once, in their order.
func names(text string, pattern string) (all []string) {
	seen := make(map[string]bool)
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		if !seen[m[1]] {
			seen[m[1]] = true
			all = append(all, m[1])
		}
	}
	return all
}

// The rules are valid, and have been tested with series.
func TestRules(t *testing.T) {
	rules := filepath.Join(repository, "deploy", "prometheus", "alerts.yml")
	if out, err := promtool(t, "check", "rules", rules); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := promtool(t, "test", "rules", filepath.Join(repository, "deploy", "prometheus", "alerts_test.yml")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A test of the rules that expects something else fails.
func TestRulesCanFail(t *testing.T) {
	dir := t.TempDir()
	const dead = `labels: '{alertname="FlotillaNodeRestarts"}', value: 1`
	tests := read(t, "deploy/prometheus/alerts_test.yml")
	if strings.Count(tests, dead) != 1 {
		t.Fatalf("%q is not there once", dead)
	}
	for name, content := range map[string]string{
		"alerts.yml": read(t, "deploy/prometheus/alerts.yml"), "alerts_test.yml": strings.Replace(tests, dead, strings.Replace(dead, "1", "2", 1), 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := promtool(t, "test", "rules", filepath.Join(dir, "alerts_test.yml"))
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, `got: {alertname="FlotillaNodeRestarts"} 1E+00`) {
		t.Errorf("%v:\n%s", err, out)
	}
}

// Each alert has a severity, sentences and a link to a section that exists. docs/operations.md
// lists all alerts and no others, and each was tested with series.
func TestRulesAreComplete(t *testing.T) {
	all := read(t, "deploy/prometheus/alerts.yml")
	_, rules, _ := strings.Cut(all, "rules:\n")
	want := names(rules, `- alert: (\w+)`)
	for _, one := range strings.Split(rules, "- alert: ")[1:] {
		name := strings.Fields(one)[0]
		for what, pattern := range map[string]string{
			"a severity":    `labels: \{severity: (critical|warning)\}`,
			"a summary":     `summary: ["\w{]`,
			"a description": `description: >-\n +[A-Z{]`,
			"a link":        `runbook_url: https://github\.com/flotilla-ha/flotilla/blob/main/docs/\w+\.md(#[\w-]+)?\n`,
		} {
			if !regexp.MustCompile(pattern).MatchString(one) {
				t.Errorf("%s has not %s", name, what)
			}
		}
		link := regexp.MustCompile(`/main/(docs/\w+\.md)(?:#([\w-]+))?`).FindStringSubmatch(one)
		if link != nil && link[2] != "" && !anchor(read(t, link[1]), link[2]) {
			t.Errorf("%s: %s has no section %s", name, link[1], link[2])
		}
	}
	if diff := cmp.Diff(want, names(read(t, "docs/operations.md"), "(?m)^\\| `(Flotilla\\w+)` \\|")); diff != "" {
		t.Errorf("docs/operations.md (-want +got):\n%s", diff)
	}
	tested := names(read(t, "deploy/prometheus/alerts_test.yml"), `- name: (Flotilla\w+)`)
	if diff := cmp.Diff(want, tested); diff != "" {
		t.Errorf("alerts_test.yml (-want +got):\n%s", diff)
	}
}

// anchor reports whether a document has a heading with this anchor, as GitHub makes them.
func anchor(text, want string) bool {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(plain, " ", "-") == want {
			return true
		}
	}
	return false
}

func TestAnchor(t *testing.T) {
	const text = "# One thing\n\n## `Code`, and more\n"
	for want, ok := range map[string]bool{"one-thing": true, "code-and-more": true, "code": false, "more": false} {
		if anchor(text, want) != ok {
			t.Error(fmt.Sprint(want, " is not ", ok))
		}
	}
}
