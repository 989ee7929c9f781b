package importer

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
)

// Plan is what a directory holds.
type Plan struct {
	// Groups are what can be imported.
	Groups []*Group

	// Left counts the files that are left out.
	Left map[records.Kind]int

	// Prefix is one that all certificates seem to have. It is empty if some have none.
	Prefix string
}

// Group is what is imported together: a certificate, an account, or one record.
type Group struct {
	// Kind and Name say what it is.
	Kind records.Kind
	Name string

	files []file
	fault string // why it is refused without reading it
}

// file is one record of a group.
type file struct{ path, key string }

// planner makes a Plan from the names of files.
type planner struct {
	prefix string // ends with a slash or is empty
	plan   Plan
	groups map[string]*Group // by name
}

func newPlanner(prefix string) *planner {
	return &planner{
		prefix: prefix,
		plan:   Plan{Left: make(map[records.Kind]int)},
		groups: make(map[string]*Group),
	}
}

// add adds the file of a path. examine returns why it cannot be read, or "". It is called only for
// files that are not left out.
func (p *planner) add(name string, examine func() string) {
	key, ok := strings.CutPrefix(name, p.prefix)
	if !ok {
		p.plan.Left[records.Outside]++
		return
	}
	kind, groupName := records.KindOf(key)
	if kind.LeftOut() {
		p.plan.Left[kind]++
		return
	}
	fault := examine()
	if len(key) > flotilla.MaxName {
		fault = fmt.Sprintf("the name has %d bytes, the limit is %d", len(key), flotilla.MaxName)
	}
	if prefix, ok := records.PrefixOf(key); ok && p.plan.Prefix == "" {
		p.plan.Prefix = p.prefix + prefix
	}
	g := p.groups[groupName]
	if g == nil {
		g = &Group{Kind: kind, Name: groupName}
		p.groups[groupName] = g
		p.plan.Groups = append(p.plan.Groups, g)
	}
	g.files = append(g.files, file{path: name, key: key})
	if fault != "" && g.fault == "" {
		g.fault = g.faultOf(key, fault)
	}
}

func (p *planner) finish() *Plan {
	if slices.ContainsFunc(p.plan.Groups, func(g *Group) bool { return g.Kind == records.Certificate }) {
		p.plan.Prefix = ""
	}
	return &p.plan
}

// faultOf names the file that a fault is about, unless the group's name does so.
func (g *Group) faultOf(key, fault string) string {
	if g.Name == key {
		return fault
	}
	return path.Base(key) + ": " + fault
}
