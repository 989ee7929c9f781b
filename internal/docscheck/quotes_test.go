package docscheck

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// documents returns the documents for users, by their paths from the root.
func documents(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md", "SECURITY.md", "CHANGELOG.md"}
	err := fs.WalkDir(os.DirFS(root), "docs", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestQuotes checks that errors and log lines that documents quote are said by the code. They stand
// in backticks, in columns with these headings.
func TestQuotes(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	all := literals(goFiles(t, ".", true))
	n := 0
	for _, path := range documents(t) {
		for _, r := range tables(read(t, path)) {
			for _, head := range []string{"the error says", "log line", "waits"} {
				for _, text := range spans(r.cell(head)) {
					n++
					if !quoted(all, text) {
						t.Errorf("%s:%d quotes %q, and no string of the code has it", path, r.line, text)
					}
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d quotes are found", n)
	}
}

// TestStatusFields checks the fields of Status that documents name, and that operations.md has all.
func TestStatusFields(t *testing.T) {
	const path = "docs/operations.md"
	files := goFiles(t, ".", false)
	within := map[string]string{ // field of Status: type of its elements
		"Lease": "LeaseStatus", "Members": "Member", "Roles": "RoleStatus", "Certificates": "Certificate",
		"Tickets": "TicketStatus", "Space": "SpaceStatus", "Waiting": "WaitStatus", "Peers": "PeerStatus", "Backup": "BackupStatus",
	}
	fields := structFields(t, files, "Status")
	said := make(map[string]bool)
	for _, r := range tables(read(t, path)) {
		for _, name := range spans(r.cell("status field")) {
			top, part, inner := strings.Cut(name, ".")
			said[top] = true
			if !slices.Contains(fields, top) {
				t.Errorf("%s:%d: Status has no field %s", path, r.line, top)
			} else if inner && !slices.Contains(structFields(t, files, within[top]), part) {
				t.Errorf("%s:%d: %s has no field %s", path, r.line, within[top], part)
			}
		}
	}
	for _, name := range fields {
		if !said[name] {
			t.Errorf("%s does not explain Status.%s", path, name)
		}
	}
}

// TestWidth checks that text is wrapped at 100 columns. Tables, code and lines with a link are not.
func TestWidth(t *testing.T) {
	later := []string{"docs/command.md", "docs/releasing.md"} // written elsewhere
	for _, path := range documents(t) {
		if slices.Contains(later, path) {
			continue
		}
		code := false
		for i, line := range strings.Split(read(t, path), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				code = !code
			}
			if code || strings.HasPrefix(line, "|") || strings.HasPrefix(line, "    ") || strings.Contains(line, "](") {
				continue
			}
			if n := utf8.RuneCountInString(line); n > 100 {
				t.Errorf("%s:%d has %d columns, 100 are allowed", path, i+1, n)
			}
		}
	}
}

// TestREADME checks that the README stays short, and that its first screen has what to run.
func TestREADME(t *testing.T) {
	lines := strings.Split(strings.TrimRight(read(t, "README.md"), "\n"), "\n")
	if len(lines) > 150 {
		t.Errorf("README.md has %d lines, 150 are allowed", len(lines))
	}
	first := strings.Join(lines[:min(25, len(lines))], "\n")
	for _, command := range []string{"go run ./examples/quickstart", "go test ./..."} {
		if !strings.Contains(first, command) {
			t.Errorf("the first 25 lines of README.md do not have %q", command)
		}
	}
}

// TestPlainWords checks that documents use the words of the glossary in docs/concepts.md.
func TestPlainWords(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	instead := map[string]string{
		`wh(o|om|ich|at)ever`:  "say who",
		`bequea\w*`:            "released on death",
		`heirs?`:               "transferee",
		`ghosts?|haunt\w*`:     "hold-down",
		`exorci\w*`:            "expire",
		`linger\w*`:            "hold-down time",
		`verdicts?`:            "failure detector",
		`lapse[sd]?`:           "expire",
		`promises? of a lease`: "grant",
	}
	code := regexp.MustCompile("`[^`]*`")
	for _, path := range documents(t) {
		if path == "docs/command.md" || path == "docs/releasing.md" {
			continue // written elsewhere
		}
		for i, line := range strings.Split(read(t, path), "\n") {
			line = code.ReplaceAllString(line, "")
			for word, better := range instead {
				if m := regexp.MustCompile(`(?i)\b(` + word + `)\b`).FindString(line); m != "" {
					t.Errorf("%s:%d: %q: %s", path, i+1, m, better)
				}
			}
		}
	}
}
