package state

import (
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Member is what a node says of itself.
type Member struct {
	// ID is the node's ID: 32 hexadecimal digits, made up once.
	ID string

	// Name is the node's name for people.
	Name string

	// Addr is the address that peers dial.
	Addr string

	// InMemory says that the node has no directory. It cannot come back once its process has ended.
	InMemory bool `json:",omitempty"`

	// Former is the ID of the node that it was before. Empty: it was none.
	Former string `json:",omitempty"`

	// Secrets are the IDs of the secrets that it accepts from others, with spaces between them. It
	// proves itself with the first.
	Secrets string `json:",omitempty"`

	// Clean says that nothing is on its disk that was sealed before the keyring's change by that
	// entry.
	Clean uint64 `json:",omitempty"`

	// Zone is the failure domain that it is in. Empty: one of its own.
	Zone string `json:",omitempty"`

	// Witness says that it votes, and neither leads nor serves.
	Witness bool `json:",omitempty"`
}

func (m Member) encode(e *codec.Encoder) {
	e.String(m.ID)
	e.String(m.Name)
	e.String(m.Addr)
	e.Bool(m.InMemory)
	e.String(m.Former)
	e.String(m.Secrets)
	e.Uint(m.Clean)
	e.String(m.Zone)
	e.Bool(m.Witness)
}

func decodeMember(d *codec.Decoder) Member {
	return Member{
		ID: d.String(), Name: d.String(), Addr: d.String(), InMemory: d.Bool(), Former: d.String(),
		Secrets: d.String(), Clean: d.Uint(), Zone: d.String(), Witness: d.Bool(),
	}
}

// HasSecret reports whether a member says that it has the secret id.
func (m Member) HasSecret(id seal.KeyID) bool {
	return slices.Contains(strings.Fields(m.Secrets), id.String())
}

// Uses reports whether a member says that it proves itself with the secret id.
func (m Member) Uses(id seal.KeyID) bool {
	all := strings.Fields(m.Secrets)
	return len(all) > 0 && all[0] == id.String()
}

// Member returns what a member says of itself, and whether it has said anything.
func (s *State) Member(id string) (Member, bool) { return s.Members.Get([]byte(id)) }

// IsFormer reports whether any member says that it was the node id before.
func (s *State) IsFormer(id string) bool {
	for _, other := range s.Servers {
		if m, ok := s.Member(other); ok && m.Former == id {
			return true
		}
	}
	return false
}

// SetMember records what a member says of itself.
type SetMember struct {
	// Member is what the member says. Its ID says which member it is.
	Member Member
}

func (SetMember) number() byte { return numberSetMember }

func (c SetMember) encode(e *codec.Encoder) { c.Member.encode(e) }

func decodeSetMember(d *codec.Decoder) Change { return SetMember{Member: decodeMember(d)} }

func (c SetMember) apply(s *State, e entry) Code {
	e.fx.seals()
	s.Members, _, _ = s.Members.Insert([]byte(c.Member.ID), c.Member)
	return CodeOK
}

// Configure returns the state after a change of raft's configuration. It forgets a server that is
// gone, and ends that server's session. Configure sorts servers and voters in place and keeps them.
func (s *State) Configure(index uint64, servers, voters []string, fx *Effects) *State {
	n := *s
	n.Index = index
	slices.Sort(servers)
	slices.Sort(voters)
	for _, id := range s.Servers {
		if slices.Contains(servers, id) {
			continue
		}
		if ses := n.Session(id); ses != nil {
			n.endSession(moment{index: index, cause: "the node is no member any more"}, id, ses.Number, endsUnconfirmed, fx)
		}
		if v, evicted := n.Evictions.Of(id); evicted && n.Keys != nil {
			n.Evictions = n.Evictions.with(told(&n, v)) // it had all that happened since
		}
		n.Members, _, _ = n.Members.Delete([]byte(id))
		n.processes, _, _ = n.processes.Delete([]byte(id))
		n.Demoted, _, _ = n.Demoted.Delete([]byte(id))
	}
	n.Servers, n.Voters, n.Elected = servers, voters, index
	s.reportMembers(&n, fx)
	fx.session()
	fx.seals()
	return &n
}

// told returns an eviction whose node knows what the members know now.
func told(s *State, v Eviction) Eviction {
	// The operator may have given it the next secret before anybody knew.
	m, _ := s.Member(v.Node)
	secrets := slices.Concat(strings.Fields(v.Secrets), strings.Fields(m.Secrets))
	for _, id := range s.Secrets() {
		secrets = append(secrets, id.String())
	}
	slices.Sort(secrets)
	v.Secrets = strings.Join(slices.Compact(secrets), " ")
	return v.knowing(s.Keys.IDs())
}

// reportMembers reports what a new configuration changes, from the state s to n.
func (s *State) reportMembers(n *State, fx *Effects) {
	report := func(kind event.Kind, before, after []string) {
		for _, id := range after {
			if !slices.Contains(before, id) {
				m, _ := s.Member(id)
				fx.report(News{Kind: kind, Index: n.Index, Node: id, Name: m.Name})
			}
		}
	}
	report(event.MemberAdded, s.Servers, n.Servers)
	report(event.VoteGiven, s.Voters, n.Voters)
	report(event.VoteTaken, n.Voters, s.Voters)
	report(event.MemberRemoved, n.Servers, s.Servers)
}
