package fence

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/google/nftables"

	"github.com/flotilla-ha/flotilla/internal/rights"
)

const (
	trialShort = time.Millisecond       // timeout of an element that must end
	trialLong  = 10 * time.Second       // timeout of an element that must not end
	trialLimit = 200 * time.Millisecond // for the first to end; a tick is at most 10 ms
	trialPause = 500 * time.Microsecond
)

// try finds out whether the kernel can do everything that a fence needs. It does all of it in a
// table of its own, on the loopback interface, and removes that again. Each step has its own error
// text.
func try(l *link, table string) (err error) {
	t := newLayout(table + "-trial")
	step := func(what, remedy string, do func(c *nftables.Conn) error) error {
		if err := l.ask(do); err != nil {
			return unsupported(what, remedy, err)
		}
		return nil
	}
	if _, err := l.open(); err != nil {
		return unsupported("open a netlink socket for nftables",
			"CONFIG_NETFILTER_NETLINK and CONFIG_NF_TABLES are needed", err)
	}
	const modules = "CONFIG_NF_TABLES and CONFIG_NF_TABLES_NETDEV are needed, " +
		"or their modules nf_tables and nf_tables_netdev"
	err = step("make a table of family netdev", modules, func(c *nftables.Conn) error {
		t.remove(c)
		c.AddTable(t.table)
		return c.Flush()
	})
	if err != nil {
		return err
	}
	defer func() {
		gone := l.ask(func(c *nftables.Conn) error {
			t.remove(c)
			return c.Flush()
		})
		if gone != nil && err == nil {
			err = unsupported("remove the table of the trial", "", gone)
		}
	}()
	const sets = "sets with timeouts and concatenated keys are needed (Linux 4.1, CONFIG_NF_TABLES)"
	err = step("make a set whose elements end", sets, func(c *nftables.Conn) error {
		if err := t.replace(c); err != nil {
			return err
		}
		err := t.fill(c, setLease, []nftables.SetElement{
			{Key: number(leaseKey), Timeout: trialShort},
			{Key: number(leaseKey + 1), Timeout: trialLong},
		})
		if err != nil {
			return err
		}
		return c.Flush()
	})
	if err != nil {
		return err
	}
	const milliseconds = "timeouts of milliseconds in sets are needed (CONFIG_NF_TABLES)"
	err = step("let an element of a set end after a millisecond", milliseconds, func(c *nftables.Conn) error {
		return tryExpiry(c, t)
	})
	if err != nil {
		return err
	}
	lo := &device{name: "lo"}
	const ingress = "CONFIG_NETFILTER_INGRESS is needed (Linux 4.2)"
	err = step("add a chain to the ingress of lo", ingress, func(c *nftables.Conn) error {
		t.add(c, ruleset{{Chain: &nftables.Chain{Name: "in", Table: t.table}}, t.ingress(lo, firstPriority)})
		return c.Flush()
	})
	if err != nil {
		return err
	}
	const egress = "CONFIG_NETFILTER_EGRESS is needed (Linux 5.16)"
	err = step("add a chain to the egress of lo", egress, func(c *nftables.Conn) error {
		t.add(c, ruleset{{Chain: &nftables.Chain{Name: "out", Table: t.table}}, t.egress(lo, firstPriority)})
		return c.Flush()
	})
	if err != nil {
		return err
	}
	const rules = "the expressions lookup, payload, bitwise, cmp, meta and immediate of CONFIG_NF_TABLES are needed"
	return step("make the rules", rules, func(c *nftables.Conn) error {
		t.add(c, t.common())
		return c.Flush()
	})
}

// tryExpiry waits until the short element has ended and checks that the long one has not.
func tryExpiry(c *nftables.Conn, t *layout) error {
	for start := time.Now(); ; {
		elements, err := c.GetSetElements(t.sets[setLease])
		if err != nil {
			return err
		}
		switch len(elements) {
		case 2:
		case 1:
			if rest := elements[0].Expires; rest <= 0 || rest > trialLong {
				return fmt.Errorf("%v are left of %v", rest, trialLong)
			}
			return nil
		default:
			return fmt.Errorf("the set has %d elements", len(elements))
		}
		if time.Since(start) > trialLimit {
			return fmt.Errorf("it is still there after %v", trialLimit)
		}
		time.Sleep(trialPause)
	}
}

// unsupported returns the error of a step that the kernel cannot do, with what is needed for it.
func unsupported(what, remedy string, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		remedy = rights.Why(err, rights.NetAdmin)
	case errors.Is(err, os.ErrDeadlineExceeded):
		remedy = "the kernel gave no answer; " + remedy
	case errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM):
		remedy = "the kernel has no memory for it"
	}
	if remedy == "" {
		return fmt.Errorf("%w: %s: %w", ErrUnsupported, what, err)
	}
	return fmt.Errorf("%w: %s: %s: %w", ErrUnsupported, what, remedy, err)
}

// explain returns the error of a step of an open fence.
func explain(step string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOENT):
		// Everything that is named in a transaction was made by this fence.
		return fmt.Errorf("%s: %w: %w", step, ErrTampered, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: %s: %w", step, rights.Why(err, rights.NetAdmin), err)
	}
	return fmt.Errorf("%s: %w", step, err)
}
