package main

import (
	"fmt"
	"os"
	"strings"
)

// The table in the document is between these lines.
const (
	documentBegin = "<!-- The table is written by go run ./internal/mutants -markdown. -->"
	documentEnd   = "<!-- End of the table. -->"
)

// writeDocument puts the table into a document.
func writeDocument(path string, all []*mutant) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := document(string(old), all)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// document returns a document's text with the table in it.
func document(text string, all []*mutant) (string, error) {
	before, rest, ok := strings.Cut(text, documentBegin)
	_, after, ok2 := strings.Cut(rest, documentEnd)
	if !ok || !ok2 {
		return "", fmt.Errorf("there is no %q with %q after it", documentBegin, documentEnd)
	}
	var b strings.Builder
	b.WriteString(before + documentBegin + "\n\n")
	fmt.Fprintf(&b, "%d mutants.\n\n", len(all))
	b.WriteString("| guard | line | becomes | killed by |\n|---|---|---|---|\n")
	for _, m := range all {
		place := m.file
		if m.in != "" {
			place += ", " + m.in
		}
		becomes := code(strings.TrimSpace(m.mutant))
		if m.mutant == "" {
			becomes = "deleted"
		}
		test := code(m.test)
		if m.pkg != "" {
			test += " of " + m.pkg
		}
		fmt.Fprintf(&b, "| %s | %s: %s | %s | %s |\n", m.guard, place, code(m.line), becomes, test)
	}
	return b.String() + "\n" + documentEnd + after, nil
}

// code formats text as code in a cell of a table.
func code(text string) string {
	text = strings.ReplaceAll(text, "|", "\\|")
	if strings.Contains(text, "`") {
		return "`` " + text + " ``"
	}
	return "`" + text + "`"
}
