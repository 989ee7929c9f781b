package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

// picture is a cluster as its nodes describe it.
type picture struct {
	nodes []node // by name
	asked string // ID of the node that was asked

	// best is the description to believe about what is the cluster's: that of the leader, else the one that knows most.
	best flotilla.Status
}

// node is one member, or the node that was asked.
type node struct {
	flotilla.Member
	said *flotilla.Status // nil: nothing
	why  string           // it has said nothing, or is not ready; empty: all is well
}

// look asks for the picture.
func (p *program) look(ctx context.Context, client *remote.Client) (*picture, error) {
	reply, err := client.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	return newPicture(reply)
}

// lookSlowly is look with a sign of life on the terminal when it takes long.
func (p *program) lookSlowly(ctx context.Context, client *remote.Client) (pic *picture, err error) {
	p.waiting("asking the nodes", func() { pic, err = p.look(ctx, client) })
	return pic, err
}

// waiting runs f with a sign of life on the terminal when it takes long.
func (p *program) waiting(doing string, f func()) {
	g := p.startProgress(doing, 0)
	defer g.end()
	f()
}

func newPicture(reply remote.StatusReply) (*picture, error) {
	pic := new(picture)
	rank := func(s *flotilla.Status) [3]uint64 {
		leads := uint64(0)
		if s.Leader == s.ID && s.ID != "" {
			leads = 1
		}
		return [3]uint64{leads, s.Term, s.Index}
	}
	for i, n := range reply.Nodes {
		one := node{Member: flotilla.Member{ID: n.ID, Name: n.Name, Addr: n.Addr}, why: n.Why}
		if i == 0 {
			pic.asked = n.ID
		}
		if len(n.Status) > 0 {
			one.said = new(flotilla.Status)
			if err := json.Unmarshal(n.Status, one.said); err != nil {
				return nil, fmt.Errorf("the status of %s is malformed; it runs another version of flotilla: upgrade the older of the two", n.Name)
			}
			mine, best := rank(one.said), rank(&pic.best)
			if slices.Compare(mine[:], best[:]) > 0 || pic.best.ID == "" {
				pic.best = *one.said
			}
		}
		pic.nodes = append(pic.nodes, one)
	}
	for i := range pic.nodes {
		n := &pic.nodes[i]
		for _, m := range pic.best.Members {
			if m.ID == n.ID {
				n.Voter, n.Present, n.Suspect, n.Why = m.Voter, m.Present, m.Suspect, m.Why
			}
		}
	}
	slices.SortFunc(pic.nodes, func(a, b node) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return pic, nil
}

// name returns what people call a node.
func (pic *picture) name(id string) string {
	for _, n := range pic.nodes {
		if n.ID == id && n.Name != "" {
			return n.Name
		}
	}
	return short(id)
}

// find returns the node that an operator has named: by its name, its ID, or the beginning of that.
func (pic *picture) find(text string) (node, error) {
	var found []node
	for _, n := range pic.nodes {
		if n.ID == text {
			return n, nil
		}
		if n.Name == text {
			found = append(found, n)
		}
	}
	for _, n := range pic.nodes {
		if len(found) == 0 && len(text) >= 4 && strings.HasPrefix(n.ID, text) {
			found = append(found, n)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	var names []string
	for _, n := range pic.nodes {
		if len(found) > 0 {
			names = append(names, n.ID)
		} else {
			names = append(names, shown(n.Name))
		}
	}
	if len(found) > 0 {
		return node{}, fmt.Errorf("several nodes are called %s; give one of the IDs %s", shown(text), strings.Join(names, ", "))
	}
	return node{}, fmt.Errorf("there is no node %s; there are %s", shown(text), strings.Join(names, ", "))
}

// voters counts those that vote, and those of them that have answered.
func (pic *picture) voters() (all, there int) {
	for _, n := range pic.nodes {
		if n.Voter {
			all++
			if n.said != nil {
				there++
			}
		}
	}
	return all, there
}

// led reports whether there is a leader that has answered, or that the others believe in.
func (pic *picture) led() bool { return pic.best.Leader != "" }

// state says in a word or two how a node is.
func (n *node) state() (string, hue) {
	switch s := n.said; {
	case s == nil && n.Present && !n.Suspect:
		return "silent", odd // the cluster takes it for alive, and it has not answered the one who asked
	case s == nil && n.Suspect:
		return "suspect", odd
	case s == nil:
		return "absent", bad
	case s.Err != "":
		return "failed", bad
	case s.Drained:
		return "drained", odd
	case s.Draining:
		return "draining", odd
	case !s.Ready:
		return "not ready", bad
	case n.Suspect:
		return "suspect", odd
	case s.Clock != "":
		return "clock wrong", odd
	}
	return "ready", good
}

// fault says why a node is not as it should be, empty if it is.
func (n *node) fault() string {
	switch state, _ := n.state(); state {
	case "ready":
		return n.differs()
	case "clock wrong":
		return n.said.Clock
	case "failed":
		if n.said.Retries {
			return "it takes no part in the cluster for now: " + n.said.Err
		}
		return "it takes no part in the cluster any more: " + n.said.Err
	case "drained":
		return "an operator has drained it (flotilla undrain undoes that)"
	case "draining":
		return "it is on its way out"
	case "not ready":
		return "it is not ready: " + n.why
	case "suspect":
		if n.said == nil {
			return "the leader has not heard of it lately, and it does not answer: " + n.why
		}
		return "the leader has not heard of it lately"
	}
	return "it does not answer: " + n.why
}

// differs says how the configuration of a node differs from that of others, empty if it does not.
func (n *node) differs() string {
	var all []string
	for _, p := range n.said.Peers {
		for _, d := range p.Differs {
			all = append(all, d+" ("+p.Name+")")
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "it is configured differently from others: " + strings.Join(all, "; ")
}

// quorum says what is wrong with the cluster as a whole, empty if nothing is.
func (pic *picture) quorum() string {
	if pic.led() {
		return ""
	}
	all, there := pic.voters()
	if all == 0 {
		return "" // no cluster yet: the node says what it waits for
	}
	if most := all/2 + 1; there < most {
		return fmt.Sprintf("the cluster has no leader: of its %d voters %d must be there, and %d answered; start those that are missing", all, most, there)
	}
	return "the cluster has no leader at this moment, although enough voters answer; if that lasts, see whether they can reach one another"
}

// served is a certificate that nodes serve, and which of them do.
type served struct {
	flotilla.Certificate
	nodes []string
}

// certificates returns all that are served, by name, and how many nodes serve any.
func (pic *picture) certificates() (all []served, serving int) {
	for _, n := range pic.nodes {
		if n.said == nil || len(n.said.Certificates) == 0 {
			continue
		}
		serving++
		for _, c := range n.said.Certificates {
			i := slices.IndexFunc(all, func(o served) bool {
				return o.Name == c.Name && o.Serial == c.Serial && o.Err == c.Err && o.SelfSigned == c.SelfSigned
			})
			if i < 0 {
				all = append(all, served{Certificate: c})
				i = len(all) - 1
			}
			all[i].nodes = append(all[i].nodes, n.Name)
		}
	}
	slices.SortStableFunc(all, func(a, b served) int { return strings.Compare(a.Name, b.Name) })
	return all, serving
}

// health says how a certificate is, and whether clients suffer from it.
func (c *served) health() (string, hue) {
	switch {
	case c.SelfSigned:
		return "self-signed for now", odd
	case c.NotAfter.IsZero():
		return "there is none yet", bad
	case c.DaysLeft < 0:
		return "expired on " + c.NotAfter.UTC().Format(time.DateOnly), bad
	case c.Err != "" && c.DaysLeft < 3:
		return "", bad
	case c.Err != "" || c.DaysLeft < 1: // how long they last at first differs much, so few days alone are no reason to worry
		return "", odd
	}
	return "", good
}

// JSON is what -json prints.
type pictureJSON struct {
	Nodes []nodeJSON // by name
}

// nodeJSON is one node in it.
type nodeJSON struct {
	flotilla.Member
	State  string           // in a word or two, as the table has it
	Why    string           `json:",omitempty"` // it is not as it should be
	Status *flotilla.Status // as the node itself says; null: it has not answered
}

func (pic *picture) json() pictureJSON {
	out := pictureJSON{Nodes: []nodeJSON{}}
	for _, n := range pic.nodes {
		state, _ := n.state()
		out.Nodes = append(out.Nodes, nodeJSON{Member: n.Member, State: state, Why: n.fault(), Status: n.said})
	}
	return out
}

// writeJSON prints a value as JSON, in one line or in several.
func (p *program) writeJSON(v any, lines bool) error {
	e := json.NewEncoder(p.stdout)
	if lines {
		e.SetIndent("", "\t")
	}
	return e.Encode(v)
}

// space returns how full the state is, by the node that has the least room: limits may differ.
func (pic *picture) space() []flotilla.SpaceStatus {
	var out []flotilla.SpaceStatus
	place := make(map[string]int)
	for _, n := range pic.nodes {
		if n.said == nil {
			continue
		}
		for _, s := range n.said.Space {
			i, known := place[s.What]
			if !known {
				place[s.What] = len(out)
				out = append(out, s)
			} else if s.Percent() > out[i].Percent() {
				out[i] = s
			}
		}
	}
	return out
}
