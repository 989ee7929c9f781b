package state

// Effects collects what a node acts on after entries, besides the state that results. The methods
// of a nil *Effects do nothing.
type Effects struct {
	Claims   []Ref    // granted, asked to hand over, or ended
	Keys     []string // records that have changed; for a deleted directory, all that were in it
	Roles    bool     // a role has another holder or another queue
	Sessions bool     // a session was opened, suspected, cleared or ended
	Tickets  bool     // the ticket keys are others
	Dropped  bool     // the former ticket keys must not be used any more
}

// add adds the effects of a part.
func (fx *Effects) add(part Effects) {
	if fx == nil {
		return
	}
	fx.Claims, fx.Keys = append(fx.Claims, part.Claims...), append(fx.Keys, part.Keys...)
	fx.Roles, fx.Sessions = fx.Roles || part.Roles, fx.Sessions || part.Sessions
	fx.Tickets, fx.Dropped = fx.Tickets || part.Tickets, fx.Dropped || part.Dropped
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

func (fx *Effects) ticket(dropped bool) {
	if fx != nil {
		fx.Tickets, fx.Dropped = true, fx.Dropped || dropped
	}
}
