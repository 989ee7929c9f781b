package flotilla

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// remarks are what this node has to say of roles, by the role's name.
type remarks struct {
	mu  sync.Mutex
	all map[string]string
}

// remark is Node.Remark.
func (n *Node) remark(role, text string) {
	n.remarks.mu.Lock()
	same := n.remarks.all[role] == text
	switch {
	case same:
	case text == "":
		delete(n.remarks.all, role)
	default:
		if n.remarks.all == nil {
			n.remarks.all = make(map[string]string)
		}
		n.remarks.all[role] = text
	}
	n.remarks.mu.Unlock()
	if !same {
		n.life.Changed.Notify()
	}
}

// add puts the remarks to the roles that they are about. One that nobody holds is listed for its remark.
func (r *remarks) add(roles []RoleStatus) []RoleStatus {
	r.mu.Lock()
	left := maps.Clone(r.all)
	r.mu.Unlock()
	if len(left) == 0 {
		return roles
	}
	for i := range roles {
		roles[i].Remark = left[roles[i].Name]
		delete(left, roles[i].Name)
	}
	for role, text := range left {
		roles = append(roles, RoleStatus{Name: role, Remark: text})
	}
	slices.SortFunc(roles, func(a, b RoleStatus) int { return strings.Compare(a.Name, b.Name) })
	return roles
}
