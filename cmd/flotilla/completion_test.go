package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			got := new(operator).run(t, "completion", shell)
			got.want(t, exitOK)
			sameAsFile(t, "completion_"+shell, got.out)
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("needs %s in PATH, to check the syntax of the script", shell)
			}
			file := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(file, []byte(got.out), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), path, "-n", file).CombinedOutput(); err != nil {
				t.Errorf("its syntax is wrong: %v\n%s", err, out)
			}
		})
	}
}

// Bash is asked what it would offer.
func TestCompletionOfBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash in PATH")
	}
	script := new(operator).run(t, "completion", "bash").out
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "some.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"flotilla me":                     "members",
		"flotilla in":                     "inspect",
		"flotilla members ":               "remove transfer",
		"flotilla members -":              "-json -peers -secret-file",
		"flotilla members remove -":       "-force -peers -secret-file",
		"flotilla members remove -force ": "",
		"flotilla roles m":                "move",
		"flotilla status -w":              "-watch",
		"flotilla status -interval ":      "",
		"flotilla status -secret-file so": "some.key",
		"flotilla inspect ":               "some.key",
		"flotilla inspect -records so":    "some.key",
		"flotilla drain ":                 "",
		"flotilla completion ":            "bash zsh fish",
		"flotilla nonsense -":             "",
	} {
		fields := strings.Split(line, " ")
		words := "'" + strings.Join(fields, "' '") + "'"
		cmd := exec.CommandContext(t.Context(), bash, "--norc", "-c", script+"\nCOMP_WORDS=("+words+"); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _flotilla; echo \"${COMPREPLY[*]}\"")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if diff := cmp.Diff(want+"\n", string(out)); diff != "" || err != nil {
			t.Errorf("%q: %v (-want +got):\n%s", line, err, diff)
		}
	}
}
