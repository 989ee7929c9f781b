package peertls

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

func nodeID(i int) string { return fmt.Sprintf("%032x", i) }

// A bearer's name is read as it was written, or refused. A node's name never reads as a bearer's.
func TestPeerOfURI(t *testing.T) {
	node, bearer := "flotilla://node/", "flotilla://death-notice/"
	notice := nodeID(7) + "/" + nodeID(2) + "/42"
	for text, want := range map[string]*Peer{
		node + nodeID(1):                            {ID: nodeID(1)},
		node + nodeID(1) + "/p":                     {ID: nodeID(1), Incarnation: "p"},
		node + "boss":                               nil,
		"other://node/" + nodeID(1):                 nil,
		"flotilla://other/" + nodeID(1):             nil,
		node + notice:                               {ID: nodeID(7), Incarnation: nodeID(2) + "/42"},
		bearer + notice:                             {ID: nodeID(7), Notice: &Notice{nodeID(2), 42}},
		bearer + notice + "/1":                      nil,
		bearer + nodeID(7):                          nil,
		bearer + nodeID(7) + "/" + nodeID(2):        nil,
		bearer + "x/" + nodeID(2) + "/42":           nil,
		bearer + nodeID(7) + "/x/42":                nil,
		bearer + nodeID(7) + "/" + nodeID(2) + "/0": nil,
		bearer + nodeID(7) + "/" + nodeID(2) + "/-": nil,
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseURI(u)
		switch {
		case want == nil && (err == nil || !strings.Contains(err.Error(), "does not name a node")):
			t.Errorf("%s names %+v, %v", text, got, err)
		case want != nil:
			if diff := cmp.Diff(*want, got); diff != "" || err != nil {
				t.Errorf("%s: %v\n%s", text, err, diff)
			}
		}
	}
}

// A name that can be read is written and read again as the same name.
func FuzzPeer(f *testing.F) {
	f.Add(Peer{ID: nodeID(1), Incarnation: "p"}.uri().String())
	f.Add(Peer{ID: nodeID(1), Notice: &Notice{nodeID(2), 42}}.uri().String())
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		p, err := parseURI(u)
		if err != nil {
			return
		}
		again, err := parseURI(p.uri())
		if diff := cmp.Diff(p, again); diff != "" || err != nil || !ValidID(p.ID) {
			t.Fatal(diff, err)
		}
	})
}

// The certificates of nodes are good for both sides, those of bearers for clients only.
func TestCertificates(t *testing.T) {
	id, err := NewNode(seal.Secret{1}, nodeID(1), "p")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewNode(seal.Secret{9}, nodeID(1), "p")
	if err != nil {
		t.Fatal(err)
	}
	notice := Notice{Node: nodeID(2), Session: 42}
	bearer, err := NewBearer(seal.Secret{1}, notice)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		of     *Identity
		server bool
		client bool
	}{
		{"node", id, true, true},
		{"bearer", bearer, false, true},
		{"node of another cluster", other, false, false},
	} {
		server := id.verify(test.of.leaf.Leaf, x509.ExtKeyUsageServerAuth) == nil
		client := id.verify(test.of.leaf.Leaf, x509.ExtKeyUsageClientAuth) == nil
		if server != test.server || client != test.client {
			t.Errorf("%s: good for a server %v and a client %v", test.name, server, client)
		}
	}
	p, err := PeerOf(bearer.leaf.Leaf)
	if diff := cmp.Diff(&notice, p.Notice); diff != "" || err != nil {
		t.Error(diff, err)
	}
	p, err = PeerOf(id.leaf.Leaf)
	if diff := cmp.Diff(Peer{ID: nodeID(1), Incarnation: "p"}, p); diff != "" || err != nil {
		t.Error(diff, err)
	}
}
