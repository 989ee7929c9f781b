package membership

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Nodes compare the settings that both know. What one does not know is no difference.
func TestSettingsDiffer(t *testing.T) {
	own := Settings{Version: SettingsVersion, Values: map[string]string{TimingSetting: "lan", "MaxState": "1", "TLS.CA": "x"}}
	for _, test := range []struct {
		name   string
		theirs map[string]string
		want   []string
	}{
		{"the same", map[string]string{TimingSetting: "lan", "MaxState": "1", "TLS.CA": "x"}, nil},
		{"nothing is known", nil, nil},
		{"one side knows more", map[string]string{"later": "1"}, nil},
		{"two differ", map[string]string{"TLS.CA": "y", "MaxState": "2"}, []string{"MaxState: 1 here, 2 there", "TLS.CA: x here, y there"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p peerSettings
			p.observe("a", Settings{Version: SettingsVersion, Values: test.theirs})
			if diff := cmp.Diff(test.want, p.differences(own)["a"]); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Another configuration of a node is news, once.
func TestSettingsAreNews(t *testing.T) {
	of := func(v string) Settings { return Settings{Values: map[string]string{"MaxState": v}} }
	var p peerSettings
	for i, test := range []struct {
		s    Settings
		news bool
	}{{of("1"), true}, {of("1"), false}, {Settings{}, false}, {of("2"), true}} {
		if got := p.observe("a", test.s); got != test.news {
			t.Errorf("%d: news %v, want %v", i, got, test.news)
		}
	}
	if got := p.differences(of("1"))["a"]; len(got) != 1 {
		t.Errorf("differences: %v", got)
	}
}

// Only another Timing keeps nodes from being in one cluster.
func TestUnsafeSettings(t *testing.T) {
	own := Settings{Values: map[string]string{TimingSetting: "lan", "MaxState": "1"}}
	for timing, want := range map[string]bool{"lan": false, "wan": true, "": false} {
		theirs := Settings{Values: map[string]string{TimingSetting: timing, "MaxState": "2"}}
		if why := theirs.unsafe(own); (why != "") != want {
			t.Errorf("%q: %q", timing, why)
		}
	}
}
