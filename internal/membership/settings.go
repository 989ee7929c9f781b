package membership

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Settings are what all nodes of a cluster should have configured alike. Nodes tell each other in
// greetings. No secret is among them, and nothing that may differ. A name that one side does not
// know says nothing about the other.
type Settings struct {
	Version int               // SettingsVersion of the node that says them
	Values  map[string]string // by the field of Config, or "domains"
}

const (
	// SettingsVersion is the version of the settings that this program writes.
	SettingsVersion = 1

	// LongestSetting is how many bytes a value may have. A longer one is replaced by a checksum.
	LongestSetting = 1024

	// TimingSetting is the one setting that must not differ: leases of different length would
	// overlap.
	TimingSetting = "Timing"
)

// Differ returns the names of the settings that differ.
func (s Settings) Differ(from Settings) []string {
	var names []string
	for name, value := range s.Values {
		if other, ok := from.Values[name]; ok && other != value {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// unsafe says why a node with these settings cannot be in one cluster with this node, empty if it
// can.
func (s Settings) unsafe(own Settings) string {
	theirs, ours := s.Values[TimingSetting], own.Values[TimingSetting]
	if theirs == "" || theirs == ours {
		return ""
	}
	return fmt.Sprintf("its Timing is %s, and that of this cluster is %s; give all nodes the same. "+
		"To change it, stop all of them first", theirs, ours)
}

// peerSettings are what the other nodes have configured, by their last word. The zero peerSettings
// is ready.
type peerSettings struct {
	mu sync.Mutex
	m  map[string]Settings // by node ID
}

// observe takes what a node says, and reports whether that is news.
func (p *peerSettings) observe(id string, s Settings) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil {
		p.m = make(map[string]Settings)
	}
	if s.Values == nil || maps.Equal(p.m[id].Values, s.Values) {
		return false
	}
	p.m[id] = s
	return true
}

// differences returns what differs from own, in words, by node ID.
func (p *peerSettings) differences(own Settings) map[string][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string][]string)
	for id, s := range p.m {
		for _, name := range own.Differ(s) {
			out[id] = append(out[id], fmt.Sprintf("%s: %s here, %s there", name, own.Values[name], s.Values[name]))
		}
	}
	return out
}
