//go:build unix

package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// held is a moment at which a node held a role.
type held struct {
	fence uint64
	node  string
	at    int64
}

// checkHolders checks all records of held roles. The fences of a role must not go back. If they do,
// two nodes held the role at the same time, or an older holder came after a newer one.
func (c *cluster) checkHolders() error {
	byRole := make(map[string][]held)
	for _, n := range c.nodes {
		if err := readHolders(n.holders, byRole); err != nil {
			return err
		}
	}
	for role, all := range byRole {
		slices.SortFunc(all, func(a, b held) int { return cmp.Compare(a.at, b.at) })
		terms := 1
		for i := 1; i < len(all); i++ {
			before, after := all[i-1], all[i]
			switch {
			case after.fence < before.fence:
				c.report.violate("role %s: %s holds it with fence %d, %d ns after %s did with fence %d", role, after.node, after.fence, after.at-before.at, before.node, before.fence)
			case after.fence == before.fence && after.node != before.node:
				c.report.violate("role %s: %s and %s hold it with fence %d", role, before.node, after.node, after.fence)
			case after.fence > before.fence:
				terms++
			}
		}
		c.report.add("tenures", terms)
	}
	return nil
}

func readHolders(file string, byRole map[string][]held) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return nil // SIGKILL has cut off the last line
		}
		if err != nil {
			return err
		}
		var role string
		var h held
		if _, err := fmt.Fscan(strings.NewReader(line), &role, &h.fence, &h.node, &h.at); err != nil {
			return fmt.Errorf("%s: %q: %w", file, line, err)
		}
		byRole[role] = append(byRole[role], h)
	}
}
