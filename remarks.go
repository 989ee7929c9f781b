package flotilla

import (
	"maps"
	"sync"
)

// remarks are this node's remarks about roles, by the role's name.
type remarks struct {
	mu  sync.Mutex
	all map[string]string
}

// set replaces the remark about a role, and reports whether it has changed.
func (r *remarks) set(role, text string) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all[role] == text {
		return false
	}
	if text == "" {
		delete(r.all, role)
		return true
	}
	if r.all == nil {
		r.all = make(map[string]string)
	}
	r.all[role] = text
	return true
}

// copy returns all remarks. The caller may change the map.
func (r *remarks) copy() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.all)
}
