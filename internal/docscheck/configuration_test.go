package docscheck

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

const configuration = "docs/configuration.md"

// fields returns the fields that a user can set, with those of its parts as "TLS.Email".
func fields(t *testing.T, files []*ast.File) []string {
	all := structFields(t, files, "Config")
	for _, part := range []string{"TLS", "Drain", "Backups"} {
		for _, name := range structFields(t, files, part) {
			all = append(all, part+"."+name)
		}
	}
	return all
}

// variables returns the variables that ConfigFromEnv reads, and the field that each sets, from
// the function envNames.
func variables(t *testing.T, files []*ast.File) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "envNames" {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				kv, ok := n.(*ast.KeyValueExpr)
				if !ok {
					return true
				}
				key, okKey := constant(kv.Key)
				value, okValue := constant(kv.Value)
				if okKey && okValue {
					all["FLOTILLA_"+key] = value
				}
				return false
			})
		}
	}
	if len(all) == 0 {
		t.Fatal("the function envNames, which lists the variables, is not where it was")
	}
	return all
}

// TestConfigurationFields checks that each field has one row, with the variables that set it.
func TestConfigurationFields(t *testing.T) {
	files := goFiles(t, ".", false)
	want, vars := fields(t, files), variables(t, files)
	seen := make(map[string]int)
	for _, r := range tables(read(t, configuration)) {
		if r.cell("default") == "" {
			continue
		}
		for _, name := range spans(r.cell("field")) {
			seen[name]++
			if !slices.Contains(want, name) {
				t.Errorf("%s:%d: there is no field %s", configuration, r.line, name)
			}
			said := spans(r.cell("variable"))
			for v, field := range vars {
				if (field == name) != slices.Contains(said, v) {
					t.Errorf("%s:%d: %s sets %s, and the row of %s says otherwise", configuration, r.line, v, field, name)
				}
			}
		}
		if r.cell("agreement") == "" {
			t.Errorf("%s:%d: must all nodes agree?", configuration, r.line)
		}
	}
	for _, name := range want {
		if seen[name] != 1 {
			t.Errorf("%s: the field %s has %d rows, want one", configuration, name, seen[name])
		}
	}
}

// TestConfigurationVariables checks the list of variables, and that no document names one that
// does not exist.
func TestConfigurationVariables(t *testing.T) {
	vars := variables(t, goFiles(t, ".", false))
	listed := make(map[string]bool)
	for _, r := range tables(read(t, configuration)) {
		if r.cell("form") == "" {
			continue
		}
		for _, v := range spans(r.cell("variable")) {
			listed[v] = true
		}
	}
	for v := range vars {
		if !listed[v] {
			t.Errorf("%s: the variable %s is not in the list", configuration, v)
		}
	}
	others := map[string]string{
		"FLOTILLA_":              "what all begin with",
		"FLOTILLA_TEST_":         "for tests",
		"FLOTILLA_GUARD_PROCESS": "of the guard process",
		"FLOTILLA_TARGET":        "of examples/compose",
	}
	name := regexp.MustCompile(`FLOTILLA_[A-Z_]*`)
	for _, path := range documents(t) {
		for _, v := range name.FindAllString(read(t, path), -1) {
			if _, ok := vars[v]; !ok && others[v] == "" {
				t.Errorf("%s names %s, which nobody reads", path, v)
			}
		}
	}
}

// TestVariablesAreRead checks that envNames, which the other tests go by, lists what the code
// reads.
func TestVariablesAreRead(t *testing.T) {
	files := goFiles(t, ".", false)
	vars := variables(t, files)
	whole := regexp.MustCompile(`^FLOTILLA_[A-Z_]*[A-Z]$`)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err == nil && whole.MatchString(text) && vars[text] == "" {
				t.Errorf("the code names %s, which envNames does not list", text)
			}
			return true
		})
	}
}
