package backups

import (
	"slices"
	"strings"
	"time"
)

const (
	timeForm = "20060102-150405"
	suffix   = ".backup"
)

// prefix begins the names of a cluster's backups.
func prefix(cluster string) string { return "flotilla-" + cluster[:min(8, len(cluster))] + "-" }

// Name returns the name of the backup of a cluster that was made at a time.
func Name(cluster string, made time.Time) string {
	return prefix(cluster) + made.UTC().Format(timeForm) + suffix
}

// timeOf returns when the backup of that name was made, and false if it is none of the cluster.
func timeOf(cluster, name string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(name, prefix(cluster))
	rest, whole := strings.CutSuffix(rest, suffix)
	made, err := time.Parse(timeForm, rest)
	return made, ok && whole && err == nil
}

// old returns the names of the cluster's backups that are not to be kept. The newest of each period
// is kept, for as many periods as keep says.
func old(cluster string, names []string, every time.Duration, keep int) []string {
	type backup struct {
		name string
		made time.Time
	}
	var all []backup
	for _, n := range names {
		if made, ok := timeOf(cluster, n); ok {
			all = append(all, backup{n, made})
		}
	}
	slices.SortFunc(all, func(a, b backup) int { return b.made.Compare(a.made) })
	var out []string
	periods, last := 0, time.Time{}
	for _, b := range all {
		if period := b.made.Truncate(every); periods == 0 || !period.Equal(last) {
			periods, last = periods+1, period
			if periods <= keep {
				continue
			}
		}
		out = append(out, b.name)
	}
	return out
}
