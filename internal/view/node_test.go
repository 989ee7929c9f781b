package view

import (
	"testing"

	"github.com/flotilla-ha/flotilla/status"
)

func TestNodeState(t *testing.T) {
	present, suspect := status.Member{Present: true}, status.Member{Present: true, Suspect: true}
	for name, test := range map[string]struct {
		node         Node
		state, fault string
	}{
		"ready":              {Node{Member: present, Status: &status.Status{Ready: true}}, "ready", ""},
		"drained":            {Node{Member: present, Status: &status.Status{Draining: true, Drained: true}}, "drained", "an operator has drained it (flotilla undrain undoes that)"},
		"draining":           {Node{Member: present, Status: &status.Status{Ready: true, Draining: true}}, "draining", "it is shutting down"},
		"not ready":          {Node{Member: present, Status: &status.Status{}, why: "w"}, "not ready", "it is not ready: w"},
		"clock wrong":        {Node{Member: present, Status: &status.Status{Ready: true, Clock: "c"}}, "clock wrong", "c"},
		"suspect":            {Node{Member: suspect, Status: &status.Status{Ready: true}}, "suspect", "the leader has not heard from it lately"},
		"suspect and silent": {Node{Member: suspect, why: "w"}, "suspect", "the leader has not heard from it lately, and it does not answer: w"},
		"silent":             {Node{Member: present, why: "w"}, "silent", "it does not answer: w"},
		"absent":             {Node{why: "w"}, "absent", "it does not answer: w"},
		"failed":             {Node{Member: present, Status: &status.Status{Ready: true, Err: "e"}}, "failed", "it takes no part in the cluster any more: e"},
		"failed for now":     {Node{Member: present, Status: &status.Status{Err: "e", Retries: true}}, "failed", "it takes no part in the cluster for now: e"},
		"differs": {
			Node{Member: present, Status: &status.Status{Ready: true, Peers: []status.Peer{{Name: "n2", Differs: []string{"X: 1 here, 2 there"}}}}},
			"ready", "its configuration differs from that of others: X: 1 here, 2 there (n2)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if state, _ := test.node.State(); state != test.state {
				t.Errorf("it is %s, want %s", state, test.state)
			}
			if fault := test.node.Fault(); fault != test.fault {
				t.Errorf("the fault is %q, want %q", fault, test.fault)
			}
		})
	}
}
