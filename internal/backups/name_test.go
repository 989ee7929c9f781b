package backups

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const cluster = "0123456789abcdef0123456789abcdef"

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestName(t *testing.T) {
	made := at("2026-03-01T12:30:05+02:00")
	name := Name(cluster, made)
	if name != "flotilla-01234567-20260301-103005.backup" {
		t.Errorf("the name is %q", name)
	}
	if got, ok := timeOf(cluster, name); !ok || !got.Equal(made) {
		t.Errorf("%q was made at %v, %v", name, got, ok)
	}
	for _, other := range []string{
		"", "flotilla-01234567-.backup", "flotilla-01234567-20260301-103005", "flotilla-01234567-20260301-103005.backup.tmp",
		"flotilla-89abcdef-20260301-103005.backup", "flotilla-01234567-20261301-103005.backup", "x" + name, "flotilla-01234567-manual.backup",
	} {
		if _, ok := timeOf(cluster, other); ok {
			t.Errorf("%q is taken for a backup of the cluster", other)
		}
	}
}

// The newest backup of each period is kept, for as many periods as there are to be. What is not a
// backup of the cluster is never removed.
func TestOld(t *testing.T) {
	name := func(text string) string { return Name(cluster, at(text)) }
	all := []string{
		name("2026-03-01T01:00:00Z"), name("2026-03-03T02:00:00Z"), name("2026-03-03T23:00:00Z"), name("2026-03-03T09:00:00Z"),
		name("2026-03-02T09:00:00Z"), name("2026-02-01T09:00:00Z"), "notes", Name("another00", at("2020-01-01T00:00:00Z")),
	}
	for _, test := range []struct {
		keep int
		want []string
	}{
		{1, []string{all[3], all[1], all[4], all[0], all[5]}},
		{2, []string{all[3], all[1], all[0], all[5]}},
		{3, []string{all[3], all[1], all[5]}},
		{9, []string{all[3], all[1]}},
	} {
		if diff := cmp.Diff(test.want, old(cluster, all, 24*time.Hour, test.keep)); diff != "" {
			t.Errorf("keeping %d:\n%s", test.keep, diff)
		}
	}
	if got := old(cluster, nil, time.Hour, 1); got != nil {
		t.Errorf("of nothing: %q", got)
	}
}
