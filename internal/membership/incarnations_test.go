package membership

import (
	"strings"
	"testing"
)

func TestIncarnations(t *testing.T) {
	a, b := NextIncarnation(0), NextIncarnation(0)
	if generation(0) != 0 || generation(a) != 1 || generation(b) != 1 || a == b {
		t.Errorf("%x and %x follow 0", a, b)
	}
	if next := NextIncarnation(a); generation(next) != 2 {
		t.Errorf("%x follows %x", next, a)
	}
}

// A node joins the newest incarnation that it finds, and none if two are as new.
func TestNewestIncarnation(t *testing.T) {
	of := func(cluster string, incarnation uint64) Greeting {
		return Greeting{Standing: Standing{Cluster: cluster}, ClusterIncarnation: incarnation}
	}
	a, b, later := uint64(1<<32|5), uint64(1<<32|6), uint64(2<<32|1)
	for name, test := range map[string]struct {
		greeted map[string]Greeting
		want    uint64
		fails   bool
	}{
		"nobody":           {nil, 0, false},
		"the first":        {map[string]Greeting{"x": of("c", 0), "y": of("", 0)}, 0, false},
		"one is newer":     {map[string]Greeting{"x": of("c", 0), "y": of("c", a), "z": of("", 0)}, a, false},
		"two are as new":   {map[string]Greeting{"x": of("c", a), "y": of("c", b)}, 0, true},
		"a third is newer": {map[string]Greeting{"x": of("c", a), "y": of("c", b), "z": of("c", later)}, later, false},
		"of two clusters":  {map[string]Greeting{"x": of("c", a), "y": of("d", b)}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newestIncarnation(test.greeted)
			if got != test.want && name != "of two clusters" || (err != nil) != test.fails || err != nil && !strings.Contains(err.Error(), "restored or recovered twice") {
				t.Errorf("%x, %v", got, err)
			}
		})
	}
}
