package view

import (
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/status"
)

// urgent is the number of days left from which a failed renewal is bad.
const urgent = 3

// Certificate is a certificate that nodes serve.
type Certificate struct {
	status.Certificate

	// Nodes are the names of the nodes that serve it.
	Nodes []string
}

// Certificates returns all certificates that are served, by name, and the number of nodes that
// serve any.
func (c *Cluster) Certificates() (all []Certificate, serving int) {
	type same struct {
		name, serial, err string
		selfSigned        bool
	}
	known := make(map[same]int) // places in all
	for _, n := range c.Nodes {
		if n.Status == nil || len(n.Status.Certificates) == 0 {
			continue
		}
		serving++
		for _, cert := range n.Status.Certificates {
			key := same{cert.Name, cert.Serial, cert.Err, cert.SelfSigned}
			i, ok := known[key]
			if !ok {
				i = len(all)
				known[key] = i
				all = append(all, Certificate{Certificate: cert})
			}
			all[i].Nodes = append(all[i].Nodes, n.Name)
		}
	}
	slices.SortStableFunc(all, func(a, b Certificate) int { return strings.Compare(a.Name, b.Name) })
	return all, serving
}

// Expired reports whether clients refuse the certificate.
func (c *Certificate) Expired() bool { return c.DaysLeft < 0 }

// State returns what there is to say about the certificate, which may be nothing, and how bad it
// is. The lifetimes of certificates vary widely, so few days left are no fault by themselves.
func (c *Certificate) State() (string, Grade) {
	switch {
	case c.SelfSigned:
		return "self-signed for now", Odd
	case c.NotAfter.IsZero():
		return "there is none yet", Bad
	case c.Expired():
		return "expired on " + c.NotAfter.UTC().Format(time.DateOnly), Bad
	case c.Err != "" && c.DaysLeft < urgent:
		return "", Bad
	case c.Err != "" || c.DaysLeft < 1:
		return "", Odd
	}
	return "", Good
}
