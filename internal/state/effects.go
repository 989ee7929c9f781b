package state

import (
	"strings"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// ItemChange is a change of an item.
type ItemChange struct {
	// Name is the item's name.
	Name string

	// Version is the index of the entry that changed it.
	Version uint64

	// Item is the item afterwards. Nil: it was deleted.
	Item *Item

	// Expired says that a deleted item's time was over, or its session.
	Expired bool
}

// IsRefresh reports whether the change only let the time of the item begin again.
func (c ItemChange) IsRefresh() bool { return c.Item != nil && c.Item.Version != c.Version }

// Effects collects what a node acts on after entries, besides the state that results. The methods
// of a nil *Effects do nothing.
type Effects struct {
	// Claims are the claims that were granted, asked to hand over, or ended.
	Claims []Ref

	// Keys are the keys of the records that have changed. A deleted directory has all keys that
	// were in it.
	Keys []string

	// Items are the changes of items, in their order.
	Items []ItemChange

	// Contended are the names of the items for which a condition was not true.
	Contended []string

	// Roles says that a role has another holder or another queue.
	Roles bool

	// Sessions says that a session was opened, suspected, cleared or ended.
	Sessions bool

	// Tickets says that the ticket keys have changed.
	Tickets bool

	// Dropped says that the former ticket keys must not be used any more.
	Dropped bool

	// Seals says that the secrets or the data keys have changed, or how far their replacement is, or
	// what members say of it.
	Seals bool

	// News are what operators want to know of, in the order of the entries.
	News []News
}

// add adds the effects of a part.
func (fx *Effects) add(part Effects) {
	if fx == nil {
		return
	}
	fx.Claims, fx.Keys = append(fx.Claims, part.Claims...), append(fx.Keys, part.Keys...)
	fx.Items, fx.Contended = append(fx.Items, part.Items...), append(fx.Contended, part.Contended...)
	fx.Roles, fx.Sessions = fx.Roles || part.Roles, fx.Sessions || part.Sessions
	fx.Tickets, fx.Dropped = fx.Tickets || part.Tickets, fx.Dropped || part.Dropped
	fx.Seals = fx.Seals || part.Seals
	fx.News = append(fx.News, part.News...)
}

func (fx *Effects) session() {
	if fx != nil {
		fx.Sessions = true
	}
}

func (fx *Effects) claim(refs ...Ref) {
	if fx != nil {
		fx.Roles = true
		fx.Claims = append(fx.Claims, refs...)
	}
}

func (fx *Effects) record(key string) {
	if fx != nil {
		fx.Keys = append(fx.Keys, key)
	}
}

func (fx *Effects) item(c ItemChange) {
	if fx != nil {
		fx.Items = append(fx.Items, c)
	}
}

func (fx *Effects) contend(name string) {
	if fx != nil {
		fx.Contended = append(fx.Contended, name)
	}
}

func (fx *Effects) seals() {
	if fx != nil {
		fx.Seals = true
	}
}

func (fx *Effects) ticket(dropped bool) {
	if fx != nil {
		fx.Tickets, fx.Dropped = true, fx.Dropped || dropped
	}
}

// report adds n.
func (fx *Effects) report(n News) {
	if fx != nil {
		fx.News = append(fx.News, n)
	}
}

// moved reports that a role has another holder, if it is one of Hold.
func (fx *Effects) moved(n News, role string) {
	if name, ok := strings.CutPrefix(role, keyspace.RolePrefix); ok {
		n.Kind, n.Role = event.RoleMoved, name
		fx.report(n)
	}
}
