package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

func TestMembersRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 3)
		o := operatorOf(c)
		leader := c.Leader()
		dead := (leader + 1) % 3
		o.dial = c.Config(leader).PeerDial // it is not killed
		name, id := c.Config(dead).Name, c.Nodes[dead].Status().ID
		o.run(t, "members", "remove", "n9").want(t, exitRefused, "flotilla members remove: there is no node n9; there are n0, n1, n2")
		o.run(t, "members", "remove", c.Config(leader).Name).want(t, exitRefused, "leads the cluster; hand the leadership over first (flotilla members transfer)")
		o.run(t, "members", "remove", name).want(t, exitRefused, "flotilla members remove: "+name+" is present; stop it first")
		c.Kill(dead)
		time.Sleep(5 * time.Second)
		last := c.Config((leader + 2) % 3).Name
		o.run(t, "members", "remove", "-force", last).want(t, exitRefused, "without "+last+" only 1 of the 2 voters that are left would be there, and no majority of them")
		got := o.run(t, "members", "remove", id[:8])
		got.want(t, exitOK, name+" is no member any more; with an empty directory it joins as a new node")
		if got.errOut != "" || strings.Count(got.out, "\n") != 1 {
			t.Errorf("it said %q, %q", got.out, got.errOut)
		}
		o.run(t, "status").want(t, exitOK, "voters there: 2 of 2")
		o.run(t, "members", "remove", name).want(t, exitRefused, "there is no node "+name)
	})
}

func TestMembersTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 3)
		o := operatorOf(c)
		first := c.Leader()
		o.run(t, "members", "transfer").want(t, exitOK, " leads\n")
		c.Settle()
		if c.Leader() == first {
			t.Error("the same node leads")
		}
		for range 2 { // the second time there is nothing to do
			o.run(t, "members", "transfer", c.Config(first).Name).want(t, exitOK, c.Config(first).Name+" leads\n")
			c.Settle()
			if c.Leader() != first {
				t.Error("another node leads")
			}
		}
		o.run(t, "members", "transfer", "n9").want(t, exitRefused, "there is no node n9")
	})
}

func TestRolesMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 3)
		o := operatorOf(c)
		o.run(t, "roles").want(t, exitOK, "no role is held\n")
		for i := range 2 {
			play(t, c, i, flotilla.Role{Name: "mailer", Priority: 10 - i})
		}
		time.Sleep(5 * time.Second)
		o.run(t, "roles", "yield", "mailer").want(t, exitOK, "n1 holds mailer\n")
		o.run(t, "roles").want(t, exitOK, "mailer  n1", "moved by hand")
		time.Sleep(time.Second) // n0 waits for it again
		o.run(t, "roles", "move", "mailer", "n0").want(t, exitOK, "n0 holds mailer\n")
		o.run(t, "roles", "move", "mailer", "n0").want(t, exitOK, "n0 holds mailer\n")
		o.run(t, "roles", "move", "mailer", "n2").want(t, exitRefused, "flotilla roles move: n2 does not wait for mailer, so it cannot have it\n")
		o.run(t, "roles", "move", "mailer", "n9").want(t, exitRefused, "there is no node n9")
		o.run(t, "roles", "move", "none", "n0").want(t, exitRefused, `no node holds a role none; "flotilla roles" lists them`)
		o.run(t, "roles", "yield", "none").want(t, exitRefused, "no node holds a role none")
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 2)
		o := operatorOf(c)
		for i := range 2 {
			play(t, c, i, flotilla.Role{Name: "mailer", Priority: 10 - i})
		}
		time.Sleep(5 * time.Second)
		o.run(t, "drain", "n0").want(t, exitOK, "n0 is drained, and has given up its roles (1)\n")
		o.run(t, "status").want(t, exitOK, "n0    drained", "mailer  n1", "remark: n0: an operator has drained it (flotilla undrain undoes that)")
		o.run(t, "health").want(t, exitRefused, "n0: an operator has drained it", "n1: ok")
		o.run(t, "drain", "n1").want(t, exitRefused, "no other node is ready, so nobody would be left for balancers to choose; -force drains n1 all the same")
		o.run(t, "drain", "-force", "n1").want(t, exitOK, "n1 is drained")
		o.run(t, "undrain", "n0").want(t, exitOK, "n0 takes part again\n")
		o.run(t, "undrain", "n1").want(t, exitOK, "n1 takes part again\n")
		time.Sleep(5 * time.Second)
		o.run(t, "health").want(t, exitOK, "n0: ok\nn1: ok\n")
		o.run(t, "roles").want(t, exitOK, "mailer  n0")
		o.run(t, "drain", "n9").want(t, exitRefused, "there is no node n9; there are n0, n1")
	})
}

// A holder that takes its time is waited for, and the operator sees that something goes on.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 1)
		o := operatorOf(c)
		o.terminal = true
		held := make(chan struct{})
		go c.Nodes[0].Hold(t.Context(), flotilla.Role{Name: "r"}, func(ctx context.Context, _ flotilla.Tenure) error {
			close(held)
			<-ctx.Done()
			time.Sleep(5 * time.Second)
			return nil
		})
		<-held
		got := o.run(t, "drain", "-force", "n0")
		got.want(t, exitOK, "n0 is drained", "\rdraining n0: 2 s", "\rdraining n0: 4 s", "\r\x1b[K")
		if strings.Contains(got.errOut, "asking") {
			t.Errorf("what is quick is shown: %q", got.errOut)
		}
	})
}

func TestInspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 3)
		if err := c.Nodes[0].Storage().Store(t.Context(), "a/b", []byte("the value")); err != nil {
			t.Fatal(err)
		}
		dir, id := c.Config(0).Dir, c.Nodes[0].Status().ID
		o := operatorOf(c)
		o.run(t, "inspect", dir).want(t, exitOK, "node       n0  "+id, "in use     by a running node: its log was not read")
		c.Stop(0)
		got := o.run(t, "inspect", dir)
		got.want(t, exitOK, "snapshots  1; the newest up to entry ", "records    1, ", "members    3", "n2    votes  ")
		if all := got.out + o.run(t, "inspect", "-records", "-json", dir).out; strings.Contains(all, "the value") || strings.Contains(got.out, "a/b") {
			t.Errorf("it shows what records hold:\n%s", all)
		}
		for line := range strings.Lines(got.out) {
			if len(line) > columns+1 {
				t.Errorf("a line is too long: %s", line)
			}
		}
		o.run(t, "inspect", "-records", dir).want(t, exitOK, "\n\na/b\n")
		o.run(t, "inspect", "-json", dir).want(t, exitOK, `"RecordCount": 1`, `"Records": null`)
		o.env["FLOTILLA_SECRETS"] = flotilla.NewSecret().Encode()
		o.run(t, "inspect", dir).want(t, exitRefused, "node       n0", "flotilla inspect: inspecting "+dir+": it is sealed with the secret ", "give the right one")
		o.run(t, "inspect", t.TempDir()).want(t, exitRefused, "it is no node's data directory")
		o.run(t, "inspect", filepath.Join(dir, "none")).want(t, exitRefused, "no such file or directory")
		o.run(t, "inspect", filepath.Join(dir, "raft.db")).want(t, exitRefused, "raft.db is no directory")
	})
}

// Flags say what variables do not.
func TestFlagsOfConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := settled(t, 1)
		o := &operator{stdin: c.Config(0).Secrets[0].Encode(), dial: c.Config(0).PeerDial}
		o.run(t, "status", "-secret-file", "-", "-peers", "n0:7373").want(t, exitOK, "n0    ready")
	})
}
