package view

import (
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// Remark is something that an operator should know.
type Remark struct {
	// Subject is what the remark is about: a node, a role as a node sees it, or a certificate with the
	// nodes that serve it. Empty: it is about the cluster.
	Subject string

	// Text says what is wrong, and where possible what to do. It is not empty.
	Text string

	// Grade says how bad it is: Odd or Bad.
	Grade Grade
}

// String returns the remark in a line.
func (r Remark) String() string {
	if r.Subject == "" {
		return r.Text
	}
	return r.Subject + ": " + r.Text
}

// Remarks returns what an operator should know, the most important first. The texts are safe to
// print.
func (c *Cluster) Remarks(now time.Time) []Remark {
	var out []Remark
	if fault := c.Fault(); fault != "" {
		out = append(out, Remark{Text: fault, Grade: Bad})
	}
	for _, n := range c.Nodes {
		if fault := n.Fault(); fault != "" {
			out = append(out, Remark{plaintext.Safe(n.Name), plaintext.Safe(fault), n.faultGrade()})
		}
	}
	for _, s := range c.Space() {
		if warning := s.Warning(); warning != "" {
			out = append(out, Remark{Text: plaintext.Safe(warning), Grade: spaceGrade(s)})
		}
	}
	if late := c.lateBackup(now); late != "" {
		out = append(out, Remark{Text: late, Grade: Odd})
	}
	if open := c.openEviction(); open != "" {
		out = append(out, Remark{Text: open, Grade: Bad})
	}
	for _, n := range c.Nodes {
		if n.Status == nil {
			continue
		}
		for _, r := range n.Status.Roles {
			if r.Remark != "" {
				out = append(out, Remark{plaintext.Safe(n.Name) + ": " + plaintext.Safe(r.Name), plaintext.Safe(r.Remark), Odd})
			}
		}
	}
	all, _ := c.Certificates()
	for _, cert := range all {
		if cert.Err != "" {
			out = append(out, cert.remark())
		}
	}
	return out
}

// remark says why there is no certificate, or no newer one, and when the next try is.
func (c *Certificate) remark() Remark {
	next := ""
	if !c.Next.IsZero() {
		next = "; next try at " + c.Next.UTC().Format(time.DateTime) + " UTC"
	}
	_, grade := c.State()
	return Remark{
		"certificate " + plaintext.Safe(c.Name) + " (" + plaintext.Safe(strings.Join(c.Nodes, ", ")) + ")",
		plaintext.Safe(c.Err) + next, grade,
	}
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
			text = "the last backup is " + plaintext.Span(now.Sub(b.Time)) + " old"
		}
		late = late || b.Late(now)
		if b.Err != "" {
			failing = append(failing, plaintext.Safe(n.Name)+" fails to make one: "+plaintext.Safe(b.Err))
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
				return w.What + ": " + plaintext.Safe(w.Why)
			}
		}
	}
	return ""
}
