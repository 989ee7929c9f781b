package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
)

func TestHelp(t *testing.T) {
	all := map[string][]string{"help": {"help"}}
	for _, c := range commands() {
		if c.name != "help" {
			all[strings.ReplaceAll(c.name, " ", "_")] = append([]string{"help"}, strings.Fields(c.name)...)
		}
	}
	for name, args := range all {
		t.Run(name, func(t *testing.T) {
			got := new(operator).run(t, args...)
			if got.code != exitOK || got.errOut != "" {
				t.Errorf("exit code %d, errors %q", got.code, got.errOut)
			}
			for line := range strings.Lines(got.out) {
				if len(line) > columns+1 && !strings.HasPrefix(line, "  flotilla ") {
					t.Errorf("a line has %d characters: %s", len(line), line)
				}
			}
			sameAsFile(t, "help_"+name, got.out)
		})
	}
	if want, got := new(operator).run(t, "help", "import").out, new(operator).run(t, "import", "-h").out; want != got || got == "" {
		t.Errorf("-h prints something else:\n%s", got)
	}
	if want, got := new(operator).run(t, "help").out, new(operator).run(t, "--help").out; want != got {
		t.Errorf("--help prints something else:\n%s", got)
	}
}

func TestKeygen(t *testing.T) {
	one, two := new(operator).run(t, "keygen"), new(operator).run(t, "keygen")
	for _, s := range []said{one, two} {
		if _, err := flotilla.ParseSecret(s.out); err != nil || s.code != exitOK || strings.Count(s.out, "\n") != 1 {
			t.Errorf("exit code %d, %v", s.code, err)
		}
	}
	if one.out == two.out {
		t.Error("the same secret twice")
	}
}

func TestVersion(t *testing.T) {
	got := new(operator).run(t, "version")
	if !regexp.MustCompile(`^flotilla \S+ go\S+ \w+/\w+\n$`).MatchString(got.out) || got.code != exitOK {
		t.Errorf("exit code %d, %q", got.code, got.out)
	}
}

// Every wrong use is told in a sentence, before anything is done, and nothing of a secret is repeated.
func TestWrongUse(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := flotilla.NewSecret().Encode()
	good, empty, damaged := write("good", secret+"\n"), write("empty", "\n"), write("damaged", secret[:len(secret)-1])
	large, short := write("large", strings.Repeat("x", maxSecretFile+1)), write("short", "0123456789abcdef0123456789abcde")
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	full := func(args ...string) []string {
		return append([]string{args[0], "-secret-file", good, "-peers", "127.0.0.1:1"}, args[1:]...)
	}
	two := func(command string, args ...string) []string {
		return append(append(strings.Fields(command), "-secret-file", good, "-peers", "127.0.0.1:1"), args...)
	}
	for name, test := range map[string]struct {
		args  []string
		env   map[string]string
		stdin string
		want  string
	}{
		"no command":             {nil, nil, "", "usage: flotilla COMMAND"},
		"another command":        {[]string{"imprt"}, nil, "", `there is no command "imprt"`},
		"help of another":        {[]string{"help", "imprt"}, nil, "", `there is no command "imprt"`},
		"help of two":            {[]string{"help", "import", "export"}, nil, "", `"export" is too much`},
		"keygen with arguments":  {[]string{"keygen", "x"}, nil, "", `it takes no arguments; "x" is too much`},
		"version with arguments": {[]string{"version", "x"}, nil, "", `it takes no arguments`},
		"one word of two":        {[]string{"help", "members", "remov"}, nil, "", `"remov" is too much`},
		"another second word":    {full("members", "remov"), nil, "", `there is no command "members remov"`},
		"flags between":          {full("members", "remove", "n1"), nil, "", "flags stand behind both words: flotilla members remove [flags]"},
		"roles of nobody":        {full("roles", "mve", "r", "n1"), nil, "", `there is no command "roles mve"`},
		"status with arguments":  {full("status", "n1"), nil, "", `it takes no arguments; "n1" is too much`},
		"short interval":         {full("status", "-watch", "-interval", "10ms"), nil, "", "-interval is 100ms at least"},
		"interval of nothing":    {full("status", "-interval", "2"), nil, "", `invalid value "2" for flag -interval`},
		"health of two":          {full("health", "n1", "n2"), nil, "", `there is one NODE, and flags stand before it; "n2" is too much`},
		"health in no time":      {full("health", "-timeout", "0s"), nil, "", "-timeout is more than 0"},
		"remove nobody":          {two("members remove"), nil, "", "NODE is missing"},
		"remove two":             {two("members remove", "n1", "-force"), nil, "", `"-force" is too much`},
		"transfer to two":        {two("members transfer", "n1", "n2"), nil, "", `"n2" is too much`},
		"move nothing":           {two("roles move"), nil, "", "ROLE is missing"},
		"move to nobody":         {two("roles move", "r"), nil, "", "NODE is missing"},
		"move to two":            {two("roles move", "r", "n1", "n2"), nil, "", `there is one ROLE and one NODE, and flags stand before them; "n2" is too much`},
		"yield nothing":          {two("roles yield"), nil, "", "ROLE is missing"},
		"drain nobody":           {full("drain"), nil, "", "NODE is missing"},
		"undrain by force":       {full("undrain", "-force", "n1"), nil, "", "flag provided but not defined: -force"},
		"inspect nothing":        {[]string{"inspect", "-secret-file", good}, nil, "", "DIR is missing"},
		"inspect with peers":     {full("inspect", source), nil, "", "flag provided but not defined: -peers"},
		"inspect without secret": {[]string{"inspect", source}, nil, "", "the cluster's secret is missing"},
		"completion of nothing":  {[]string{"completion"}, nil, "", "SHELL is missing"},
		"completion of another":  {[]string{"completion", "tcsh"}, nil, "", `SHELL is bash, zsh or fish, not "tcsh"`},
		"no secret for status":   {[]string{"status", "-peers", "a:1"}, nil, "", "the cluster's secret is missing; give -secret-file"},
		"no peers for drain":     {[]string{"drain", "-secret-file", good, "n1"}, nil, "", "the addresses of the cluster's nodes are missing; give -peers"},
		"no directory":           {full("import"), nil, "", "DIR is missing"},
		"empty directory name":   {full("import", ""), nil, "", "DIR is missing"},
		"two directories":        {full("import", source, source), nil, "", "there is one DIR"},
		"flag behind":            {full("import", source, "-overwrite"), nil, "", `flags stand before it; "-overwrite" is too much`},
		"unknown flag":           {full("import", "-force", source), nil, "", "flag provided but not defined: -force"},
		"directory not there":    {full("import", filepath.Join(dir, "none")), nil, "", "no such file or directory"},
		"directory is a file":    {full("import", good), nil, "", "DIR: "},
		"key without S3":         {full("import", "-s3-key-file", good, source), nil, "", "give -from-s3 too"},
		"key not there":          {full("import", "-from-s3", "-s3-key-file", "none", source), nil, "", "-s3-key-file: open none"},
		"short key":              {full("import", "-from-s3", "-s3-key-file", short, source), nil, "", "this file has 31 bytes and is none of these"},
		"export without consent": {full("export", source), nil, "", "private keys would be written unencrypted to " + source},
		"export nowhere":         {full("export", "-plain-keys"), nil, "", "DIR is missing"},
		"no secret":              {[]string{"import", "-peers", "a:1", source}, nil, "", "the cluster's secret is missing; give -secret-file"},
		"secret file not there":  {[]string{"import", "-secret-file", "none", "-peers", "a:1", source}, nil, "", "-secret-file: open none"},
		"empty secret file":      {[]string{"import", "-secret-file", empty, "-peers", "a:1", source}, nil, "", "-secret-file " + empty + " is empty"},
		"large secret file":      {[]string{"import", "-secret-file", large, "-peers", "a:1", source}, nil, "", "too large for a secret"},
		"damaged secret":         {[]string{"import", "-secret-file", damaged, "-peers", "a:1", source}, nil, "", "holds no valid secret in place 1: a secret has 59 characters"},
		"damaged on stdin":       {[]string{"import", "-secret-file", "-", "-peers", "a:1", source}, nil, secret + " flt1_x", "-secret-file - holds no valid secret in place 2"},
		"secret twice":           {[]string{"import", source}, map[string]string{"FLOTILLA_SECRETS": secret, "FLOTILLA_SECRETS_FILE": good}, "", "are both set; unset one"},
		"damaged in environment": {[]string{"import", source}, map[string]string{"FLOTILLA_SECRETS": secret[:20]}, "", "FLOTILLA_SECRETS holds no valid secret"},
		"no peers":               {[]string{"import", "-secret-file", good, source}, nil, "", "the addresses of the cluster's nodes are missing; give -peers"},
		"peer without port":      {[]string{"import", "-secret-file", good, "-peers", "a:7373,b", source}, nil, "", "-peers must list addresses as host:port: address b: missing port"},
		"peer without host":      {[]string{"import", "-secret-file", good, "-peers", ":7373", source}, nil, "", `":7373" names no host, or no port`},
		"peers of environment":   {[]string{"import", "-secret-file", good, source}, map[string]string{"FLOTILLA_PEERS": "a:x"}, "", "FLOTILLA_PEERS must list"},
		"empty DNS":              {[]string{"import", "-secret-file", good, "-peers", "dns:", source}, nil, "", "are missing"},
		"DNS without port":       {[]string{"import", "-secret-file", good, "-peers", "dns:app", source}, nil, "", "missing port"},
	} {
		t.Run(name, func(t *testing.T) {
			o := &operator{env: test.env, stdin: test.stdin}
			got := o.run(t, test.args...)
			got.want(t, exitUsage, test.want)
			if got.out != "" {
				t.Errorf("it printed %q", got.out)
			}
			if strings.Contains(got.errOut, secret[5:20]) {
				t.Error("it repeats the secret")
			}
		})
	}
	if left, _ := os.ReadDir(source); len(left) > 0 {
		t.Errorf("something was written: %v", left)
	}
}

func TestNobodyThere(t *testing.T) {
	o := &operator{env: map[string]string{"FLOTILLA_SECRETS": flotilla.NewSecret().Encode(), "FLOTILLA_PEERS": "127.0.0.1:1 localhost:1"}}
	dir := t.TempDir()
	store(t, dir, map[string]string{"a": "1"})
	o.run(t, "import", dir).want(t, exitUnreachable, "stopped after 0 of 1", "127.0.0.1:1: nobody listens there", "localhost:1: nobody listens there")
	target := filepath.Join(t.TempDir(), "out")
	o.run(t, "export", "-plain-keys", target).want(t, exitUnreachable, "nobody listens there")
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}
