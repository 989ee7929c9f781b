package view

import (
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/term"
)

// remarks returns what an operator should know, the most important first.
func (c *Cluster) remarks(now time.Time) []string {
	var out []string
	add := func(parts ...string) { out = append(out, "remark: "+strings.Join(parts, ": ")) }
	if fault := c.Fault(); fault != "" {
		add(fault)
	}
	for _, n := range c.Nodes {
		if fault := n.Fault(); fault != "" {
			add(term.Safe(n.Name), term.Safe(fault))
		}
	}
	for _, s := range c.Space() {
		if warning := s.Warning(); warning != "" {
			add(warning)
		}
	}
	if late := c.lateBackup(now); late != "" {
		add(late)
	}
	if open := c.openEviction(); open != "" {
		add(open)
	}
	for _, n := range c.Nodes {
		if n.Status == nil {
			continue
		}
		for _, r := range n.Status.Roles {
			if r.Remark != "" {
				add(term.Safe(n.Name), term.Safe(r.Name), term.Safe(r.Remark))
			}
		}
	}
	all, _ := c.Certificates()
	for _, cert := range all {
		if cert.Err == "" {
			continue
		}
		next := ""
		if !cert.Next.IsZero() {
			next = "; next try at " + cert.Next.UTC().Format(time.DateTime) + " UTC"
		}
		add("certificate "+term.Safe(cert.Name)+" ("+strings.Join(cert.Nodes, ", ")+")", term.Safe(cert.Err)+next)
	}
	return out
}

// lateBackup says that the last automatic backup is too old, and why, or "".
func (c *Cluster) lateBackup(now time.Time) string {
	text, late := "", false
	var failing []string
	for _, n := range c.Nodes {
		if n.Status == nil || n.Status.Backup == nil || !n.Status.Backup.Makes {
			continue // nobody is to make backups, or no longer
		}
		b := n.Status.Backup
		if text == "" && b.Time.IsZero() {
			text = "no backup was made yet"
		} else if text == "" {
			text = "the last backup is " + term.Span(now.Sub(b.Time)) + " old"
		}
		late = late || b.Late(now)
		if b.Err != "" {
			failing = append(failing, term.Safe(n.Name)+" fails to make one: "+term.Safe(b.Err))
		}
	}
	if !late {
		return ""
	}
	return strings.Join(append([]string{text}, failing...), "; ")
}

// openEviction says that an eviction has not ended, and what to do, or "".
func (c *Cluster) openEviction() string {
	for _, n := range c.Nodes {
		if n.Status == nil {
			continue
		}
		for _, w := range n.Status.Waiting {
			if w.What == "an eviction has not ended" {
				return w.What + ": " + term.Safe(w.Why)
			}
		}
	}
	return ""
}
