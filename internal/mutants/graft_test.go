package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Without the variable nothing changes. With it only the mutant of that number is in force.
func TestGraft(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	const source = `package main

import "fmt"

type T int

func main() {
	fmt.Println(max(1, 2), T(3).double(), sum(1, 2, 3), T(4).ignored(5, "x"))
	T(1).say("said")
}

func max(a, b int) int {
	if a > b {
		return a
	}
	return b
}

func (t T) double() T { return 2 * t }

func sum(all ...int) (s int) {
	for _, n := range all {
		s += n
	}
	return s
}

func (T) ignored(_ int, text string) string {
	return text
}

func (t T) say(text string) {
	fmt.Println(text)
}
`
	var mutants []*mutant
	for i, r := range []row{
		{line: "if a > b {", mutant: "if a < b {", in: "max"},
		{line: "if a > b {", mutant: "if false {", in: "max"},
		{line: "func (t T) double() T { return 2 * t }", mutant: "func (t T) double() T { return 3 * t }"},
		{line: "s += n", mutant: "s -= n", in: "sum"},
		{line: "return text", mutant: "return text + text", in: "ignored"},
		{line: "fmt.Println(text)", mutant: "fmt.Println(text, t)", in: "say"},
	} {
		r.test, r.guard = "TestX", "why"
		m, err := r.find(source)
		if err != nil {
			t.Fatal(err)
		}
		m.id = i + 1
		mutants = append(mutants, m)
	}
	grafted, pkg, err := graft("main.go", source, mutants)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "main.go", grafted)
	write(t, dir, "switch.go", switchFile(pkg))
	write(t, dir, "go.mod", "module m\n\ngo 1.26\n")
	build := exec.Command("go", "build", "-o", "program", ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, grafted)
	}
	for number, want := range map[string]string{
		"": "2 6 6 x\nsaid", "1": "1 6 6 x\nsaid", "2": "2 6 6 x\nsaid", "3": "2 9 6 x\nsaid", "4": "2 6 -6 x\nsaid", "5": "2 6 6 xx\nsaid",
		"6": "2 6 6 x\nsaid 1", "7": "2 6 6 x\nsaid",
	} {
		cmd := exec.Command(filepath.Join(dir, "program"))
		cmd.Env = append(os.Environ(), variable+"="+number)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("mutant %q prints %q, %v; want %q", number, out, err, want)
		}
	}
}
