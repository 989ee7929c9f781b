package docscheck

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// logLine is a line of the log: its level, and its text with "…" for what is put in.
type logLine struct{ level, text string }

// logLines returns the lines that the files log at INFO and above, on a slog.Logger.
func logLines(files []*ast.File) (all []logLine) {
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if l, ok := logged(call); ok {
					all = append(all, l)
				}
			}
			return true
		})
	}
	return all
}

// logged returns what a call logs. A logger is an expression whose last name is log or logger.
func logged(call *ast.CallExpr) (l logLine, ok bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return l, false
	}
	l.level = strings.ToUpper(method.Sel.Name)
	if l.level != "INFO" && l.level != "WARN" && l.level != "ERROR" {
		return l, false
	}
	var name string
	switch x := method.X.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	name = strings.ToLower(name)
	l.text = message(call.Args[0])
	return l, name == "log" || name == "logger"
}

// message returns the text of a message, with "…" for what is put in.
func message(e ast.Expr) string {
	if text, ok := constant(e); ok {
		return text
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return message(e.X) + message(e.Y)
		}
	case *ast.CallExpr:
		if f, ok := e.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" {
			return regexp.MustCompile(`%[a-z]`).ReplaceAllString(message(e.Args[0]), "…")
		}
	}
	return "…"
}

// tells reports whether a row of the table tells of a line. It may leave out the end.
func (l logLine) tells(of logLine) bool {
	return l.level == of.level && strings.HasPrefix(of.text, l.text)
}

// indirect returns lines of the table that the code puts together in another way, or whose level
// depends on something. TestQuotes checks their texts.
func indirect() []logLine {
	return []logLine{
		// internal/lease, as a proposal
		{"WARN", "a node is gone; what it held is free"},
		{"INFO", "a node is silent"},
		{"INFO", "a node is heard again"},
		{"INFO", "a role is free: what its last holder left cannot be seen any more"},
		// internal/certs/staple and rekey: a failure like the one before has level debug
		{"WARN", "no new OCSP staple; will try again"},
		{"WARN", "a key is not replaced yet; will try again"},
		// internal/certs/sweep
		{"WARN", "a leftover of an order cannot be read"},
		{"WARN", "a leftover of an order cannot be deleted"},
		{"WARN", "the storage cannot be searched for leftovers of orders"},
		// internal/wire/peerconn, on either side
		{"WARN", "dialled with another cluster secret"},
		// vip, by the kind of the event
		{"INFO", "floating address: … bound"}, {"INFO", "floating address: … moved"},
		{"INFO", "floating address: … mended"}, {"WARN", "floating address: … conflict"},
		{"WARN", "floating address: … failed"}, {"WARN", "floating address: … lost"},
		{"WARN", "floating address: … kept"},
	}
}

// unknown is how many calls log a text that the call does not show: two of waiting.go, one of
// internal/certs/sweep, one of internal/wire/peerconn. Another one needs a row in indirect.
const unknown = 4

// TestLogLines compares the table of docs/logs.md with the code: it has each line that is a warning
// or an error, and what it has is logged at that level.
func TestLogLines(t *testing.T) {
	const path = "docs/logs.md"
	code := logLines(logging(t))
	if len(code) < 150 {
		t.Fatalf("only %d lines are found in the code", len(code))
	}
	var table []logLine
	for _, r := range tables(read(t, path)) {
		for _, text := range spans(r.cell("log line")) {
			l := logLine{r.cell("level"), text}
			table = append(table, l)
			if !slices.ContainsFunc(code, l.tells) && !slices.Contains(indirect(), l) {
				t.Errorf("%s:%d: no code logs %q at level %s", path, r.line, text, l.level)
			}
		}
	}
	hidden := 0
	for _, l := range code {
		switch {
		case strings.HasPrefix(l.text, "…"):
			hidden++
		case l.level == "INFO" || strings.HasPrefix(l.text, "the peer at … dialled with another cluster secret"):
		case !slices.ContainsFunc(table, func(row logLine) bool { return row.tells(l) }):
			t.Errorf("%s does not have the line %q with level %s", path, l.text, l.level)
		}
	}
	if hidden != unknown {
		t.Errorf("%d calls log a text that the call does not show, not %d", hidden, unknown)
	}
	for _, l := range indirect() {
		if !slices.Contains(table, l) {
			t.Errorf("%s does not have the line %q with level %s", path, l.text, l.level)
		}
	}
}

// TestLoggedNodes checks that no line says of another node what the attribute "node" says of the
// node that writes it: readers of JSON would see one of the two only.
func TestLoggedNodes(t *testing.T) {
	for _, f := range logging(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if l, ok := logged(call); ok && slices.ContainsFunc(call.Args[1:], isNode) {
				t.Errorf("the line %q has an attribute node; call it peer", l.text)
			}
			return true
		})
	}
}

func isNode(e ast.Expr) bool {
	text, ok := constant(e)
	return ok && text == "node"
}

// logging parses the packages whose lines are in the log of a node.
func logging(t *testing.T) []*ast.File {
	files := goFiles(t, ".", false)
	for _, dir := range []string{"internal", "vip", "hold", "kv"} {
		files = append(files, goFiles(t, dir, true)...)
	}
	return files
}

func TestLogged(t *testing.T) {
	for _, tc := range []struct {
		name, code string
		want       []logLine
	}{
		{"levels", `log.Info("a"); n.log.Warn("b"); c.cfg.Log.Error("c", "err", err); s.Logger.Debug("d")`,
			[]logLine{{"INFO", "a"}, {"WARN", "b"}, {"ERROR", "c"}}},
		{"texts", `log.Info("a " + "b: " + why + "; c"); log.Warn(fmt.Sprintf("%d of %v", 1, 2)); log.Error(err.Error())`,
			[]logLine{{"INFO", "a b: …; c"}, {"WARN", "… of …"}, {"ERROR", "…"}}},
		{"no logs", `http.Error(w, "a", 1); err.Error(); t.Error("b"); log.Error()`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := parser.ParseFile(token.NewFileSet(), "", "package p; func f() {"+tc.code+"}", 0)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, logLines([]*ast.File{f}), cmp.AllowUnexported(logLine{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
