package state

import "strconv"

// describeNews returns what an entry did, as operators are told.
func describeNews(n News) string {
	out := "news: " + string(n.Kind)
	for _, part := range []string{n.Role, n.From, n.Node, n.Name, n.Cause} {
		if part != "" {
			out += " " + strconv.Quote(part)
		}
	}
	if n.Outage > 0 {
		out += " after " + n.Outage.String()
	}
	if n.Unplanned {
		out += " unplanned"
	}
	return out
}
