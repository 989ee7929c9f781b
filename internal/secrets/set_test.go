package secrets

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// named is some secrets by one letter each.
func named(letters string) (all []seal.Secret) {
	for _, l := range []byte(letters) {
		all = append(all, seal.Secret{l})
	}
	return all
}

func ids(letters string) (all []seal.KeyID) {
	for _, s := range named(letters) {
		all = append(all, s.ID())
	}
	return all
}

// letters is the inverse of named.
func letters(all []seal.Secret) string {
	var b strings.Builder
	for _, s := range all {
		b.WriteByte(s[0])
	}
	return b.String()
}

func TestSet(t *testing.T) {
	for _, test := range []struct {
		name           string
		given, later   string // by the operator; later: empty: nothing else
		inUse, dropped string // by the cluster
		want           string // accepted, in order
		missing        string // of what is given later
	}{
		{name: "nothing is known of the cluster", given: "ab", want: "ab"},
		{name: "the one in use comes first", given: "ba", inUse: "a", want: "ab"},
		{name: "in the order of use", given: "ab", inUse: "ba", want: "ba"},
		{name: "not all that are in use are there", given: "b", inUse: "ab", want: "b"},
		{name: "a dropped one is not accepted", given: "ab", inUse: "b", dropped: "a", want: "b"},
		{name: "all were dropped", given: "a", inUse: "b", dropped: "a", want: "a"},
		{name: "another one is given", given: "a", inUse: "a", later: "ab", want: "ab"},
		{name: "one in use is taken away", given: "ab", inUse: "a", later: "b", want: "ab", missing: "a"},
		{name: "one is taken away that is not in use", given: "ab", inUse: "a", later: "a", want: "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := New(named(test.given))
			s.Follow(ids(test.inUse), ids(test.dropped))
			if test.later != "" {
				missing := s.Give(named(test.later))
				if diff := cmp.Diff(ids(test.missing), missing); diff != "" {
					t.Errorf("missing (-want +got):\n%s", diff)
				}
			}
			if got := letters(s.Accepted()); got != test.want {
				t.Errorf("%s are accepted, want %s", got, test.want)
			}
		})
	}
}

// A secret that was taken away too early stays until the cluster has dropped it, and not longer.
func TestKept(t *testing.T) {
	s := New(named("ab"))
	s.Follow(ids("ab"), nil)
	s.Give(named("b"))
	s.Give(named("bc"))
	if got := letters(s.Accepted()); got != "abc" {
		t.Fatalf("%s are accepted", got)
	}
	changed := s.Changed.Wait()
	s.Follow(ids("b"), ids("a"))
	if got := letters(s.All()); got != "bc" {
		t.Fatalf("it still has %s", got)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
}

func TestParse(t *testing.T) {
	one, two := seal.Secret{1}, seal.Secret{2}
	for text, want := range map[string][]seal.Secret{
		one.Encode(): {one},
		one.Encode() + "\r\n" + two.Encode() + "\n": {one, two},
		two.Encode() + ", " + one.Encode():          {two, one},
		one.Encode() + " " + one.Encode():           {one},
	} {
		got, err := Parse(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v: %s", err, diff)
		}
	}
	if _, err := Parse(" \n"); err != ErrEmpty {
		t.Errorf("nothing: %v", err)
	}
	bad := one.Encode()[:60]
	_, err := Parse(two.Encode() + " " + bad)
	if err == nil || !strings.Contains(err.Error(), "no valid secret in place 2") || strings.Contains(err.Error(), bad[5:]) {
		t.Errorf("a damaged one: %v", err)
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// What is in the file counts from the moment at which it is whole. Until then the node has what it
// had. Each change and each fault is reported once.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := seal.Secret{1}, seal.Secret{2}
		path := filepath.Join(t.TempDir(), "secrets")
		s := New([]seal.Secret{a})
		s.Follow([]seal.KeyID{a.ID()}, nil)
		var log testlog.Buffer
		go Watch(t.Context(), path, s, slog.New(slog.NewTextHandler(&log, nil)))
		for _, step := range []struct {
			name, text string
			want       []seal.Secret
			says       string // once; empty: nothing
		}{
			{"no file", "", []seal.Secret{a}, "the file of secrets is not taken"},
			{"the same", a.Encode(), []seal.Secret{a}, ""},
			{"another one", a.Encode() + "\n" + b.Encode(), []seal.Secret{a, b}, "the file of secrets has changed"},
			{"half of it", a.Encode() + "\n" + b.Encode()[:20], []seal.Secret{a, b}, "no valid secret in place 2"},
			{"too early", b.Encode(), []seal.Secret{b, a}, "put it back"},
		} {
			if step.text != "" {
				if err := os.WriteFile(path, []byte(step.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(3 * fileLook)
			synctest.Wait()
			if diff := cmp.Diff(step.want, s.All()); diff != "" {
				t.Errorf("%s: it has (-want +got):\n%s", step.name, diff)
			}
			said := log.String()
			log.Reset()
			if n := strings.Count(said, step.says); step.says == "" && said != "" || step.says != "" && n != 1 {
				t.Errorf("%s: the log is\n%s", step.name, said)
			}
			if strings.Contains(said, b.Encode()[5:20]) {
				t.Errorf("%s: the log has a secret", step.name)
			}
		}
	})
}
