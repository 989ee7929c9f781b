package fence

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// verifier compares a table in the kernel with what was made.
type verifier struct {
	link   *link
	layout *layout

	// made are the chains with their rules, as the kernel returned them after they were made.
	made   map[string][]string
	looked bool   // everything was as it should be at the generation seen
	seen   uint32 // generation of the ruleset; link counts our own transactions since
}

// chains returns the chains of the table; none if there is no table.
func (v *verifier) chains(c *nftables.Conn) ([]*nftables.Chain, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(chains, func(ch *nftables.Chain) bool {
		return ch.Table == nil || ch.Table.Name != v.layout.table.Name
	}), nil
}

// recall reads the chains back from the kernel, compares them, and keeps the result for Check.
func (v *verifier) recall(chains ruleset) error {
	made, err := v.dump()
	if err != nil {
		return explain("read back the table "+v.layout.table.Name, err)
	}
	for _, ch := range chains {
		var want []string
		for _, rule := range ch.rules {
			t, err := text(rule)
			if err != nil {
				return err
			}
			want = append(want, t)
		}
		if got, ok := made[ch.Name]; !ok || !slices.EqualFunc(got, want, strings.HasSuffix) {
			return fmt.Errorf("the kernel holds other rules in the chain %s than it was given: %q, not %q",
				ch.Name, got, want)
		}
	}
	v.made = made
	return nil
}

// dump returns the chains of the table with their rules. A rule is its handle, which changes when
// the rule is replaced, its owner, and its text.
func (v *verifier) dump() (map[string][]string, error) {
	made := make(map[string][]string)
	err := v.link.ask(func(c *nftables.Conn) error {
		chains, err := v.chains(c)
		if err != nil {
			return err
		}
		for _, ch := range chains {
			rules, err := c.GetRules(v.layout.table, ch)
			if err != nil {
				return err
			}
			made[ch.Name] = nil
			for _, r := range rules {
				t, err := text(r.Exprs)
				if err != nil {
					return err
				}
				made[ch.Name] = append(made[ch.Name], fmt.Sprintf("%d %s ", r.Handle, r.UserData)+t)
			}
		}
		return nil
	})
	return made, err
}

// checks is how often check looks, because a transaction of another program may come between the
// parts of a look.
const checks = 3

// check compares everything with what was made.
func (v *verifier) check(devices []*device) (err error) {
	for range checks {
		if err = v.look(devices); err == nil {
			return nil
		}
	}
	return err
}

// look compares everything with what was made. It can skip that if the kernel has counted only our
// own transactions since the last time.
func (v *verifier) look(devices []*device) error {
	for _, d := range devices {
		switch name, err := v.link.name(d.index); {
		case err != nil:
			return fmt.Errorf("%w: the interface %s is not there any more: %w", ErrTampered, d.name, err)
		case name != d.name:
			return fmt.Errorf("%w: the interface %s is called %s now", ErrTampered, d.name, name)
		}
	}
	gen, err := v.link.generation()
	if err != nil {
		return explain("ask for the generation of the ruleset", err)
	}
	if v.looked && !v.link.unsure && gen == v.seen+v.link.own {
		return nil
	}
	v.looked, v.link.unsure, v.link.own, v.seen = false, false, 0, gen
	made, err := v.dump()
	if err != nil {
		return explain("read the table "+v.layout.table.Name, err)
	}
	if len(made) == 0 {
		return fmt.Errorf("%w: there is no table %s any more", ErrTampered, v.layout.table.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(v.made)) {
		if got, ok := made[name]; !ok {
			return fmt.Errorf("%w: there is no chain %s any more", ErrTampered, name)
		} else if !slices.Equal(got, v.made[name]) {
			return fmt.Errorf("%w: the chain %s has other rules", ErrTampered, name)
		}
	}
	err = v.lookGuarded(devices)
	v.looked = err == nil
	return err
}

// lookGuarded compares what is guarded with what was made.
func (v *verifier) lookGuarded(devices []*device) error {
	want := make(map[uint32]map[string]bool)
	for _, id := range []uint32{setGuarded4, setGuarded6, setAnnounce4} {
		want[id] = make(map[string]bool)
	}
	for _, d := range devices {
		four, six, announce := guardElements(d)
		for id, elements := range map[uint32][]nftables.SetElement{
			setGuarded4: four, setGuarded6: six, setAnnounce4: announce,
		} {
			for _, e := range elements {
				want[id][string(e.Key)] = true
			}
		}
	}
	return v.link.ask(func(c *nftables.Conn) error {
		for id, keys := range want {
			elements, err := c.GetSetElements(v.layout.sets[id])
			if err != nil {
				return fmt.Errorf("%w: read the set %s: %w", ErrTampered, v.layout.sets[id].Name, err)
			}
			got := make(map[string]bool)
			for _, e := range elements {
				got[string(e.Key)] = true
			}
			if !maps.Equal(got, keys) {
				return fmt.Errorf("%w: the set %s has other elements", ErrTampered, v.layout.sets[id].Name)
			}
		}
		return nil
	})
}
