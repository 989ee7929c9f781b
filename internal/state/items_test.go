package state

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/script"
)

// write NODE BUCKET WORD…: conditions, such as absent:k, present:k and version:k:7, and
// operations, such as put:k:v, delete:k and refresh:k. What is put has ttl=1s and session=yes.
func (m *machine) write(c *script.Command) string {
	node := c.Arg()
	change := WriteItems{Bucket: c.Arg(), MaxRecords: int64(c.Uint("max", 1<<20))}
	ttl, session := duration(c, "ttl"), yes(c, "session")
	for _, word := range c.Args() {
		parts := strings.Split(word, ":")
		key := parts[1]
		switch parts[0] {
		case "absent":
			change.If = append(change.If, ItemIf{Key: key, Is: IsAbsent})
		case "present":
			change.If = append(change.If, ItemIf{Key: key, Is: IsPresent})
		case "version":
			version, err := strconv.ParseUint(parts[2], 10, 64)
			if err != nil {
				c.Fatalf("%v", err)
			}
			change.If = append(change.If, ItemIf{key, IsVersion, version})
		case "put":
			change.Ops = append(change.Ops, ItemOp{Key: key, Put: &ItemPut{[]byte(parts[2]), ttl, session}})
		case "delete":
			change.Ops = append(change.Ops, ItemOp{Key: key})
		case "refresh":
			change.Ops = append(change.Ops, ItemOp{Key: key, Refresh: true})
		default:
			c.Fatalf("%q is no condition and no operation", word)
		}
	}
	command := m.own(c, node, change)
	command.Requires = 2
	return m.run(command)
}

// describeItems shows what a command did to items.
func describeItems(fx Effects) (out string) {
	for _, c := range fx.Items {
		name := strings.ReplaceAll(c.Name, "\x00", "/")
		switch {
		case c.Expired:
			out += "; " + name + " expired"
		case c.Item == nil:
			out += "; " + name + " deleted"
		case c.IsRefresh():
			out += "; " + name + " refreshed"
		default:
			out += "; " + name
		}
	}
	for _, name := range fx.Contended {
		out += "; contended " + strings.ReplaceAll(name, "\x00", "/")
	}
	return out
}

// items BUCKET: all items of the bucket.
func (m *machine) items(c *script.Command) string {
	var out []string
	for name, i := range Each(m.s.Items.ByName, []byte(ItemName(c.Arg(), ""))) {
		line := fmt.Sprintf("%s: %q, version %d", ItemKey(string(name)), i.Value, i.Version)
		if i.TTL != 0 {
			line += fmt.Sprintf(", for %v from entry %d at %d", i.TTL, i.Renewed, i.Time/int64(time.Second))
		}
		if i.Node != "" {
			line += fmt.Sprintf(", of session %d of %s", i.Session, i.Node)
		}
		out = append(out, line)
	}
	return strings.Join(append(out, fmt.Sprintf("%d bytes", m.s.Used[keyspace.ProgramItems])), "\n")
}

// time-over BUCKET KEY@ENTRY…: the leader finds that the time since that entry is over.
func (m *machine) timeOver(c *script.Command) string {
	bucket := c.Arg()
	var change ExpireItems
	for _, text := range c.Args() {
		key, renewed := place(c, text)
		change.Items = append(change.Items, ItemAt{ItemName(bucket, key), renewed})
	}
	return m.run(Command{Requires: 2, Change: change})
}

// deleted BUCKET: what is remembered of deletions after=ENTRY.
func (m *machine) deleted(c *script.Command) string {
	all, complete := m.s.Items.Deleted(ItemName(c.Arg(), ""), c.Uint("after", 0))
	out := fmt.Sprintf("complete: %v", complete)
	for _, x := range all {
		out += fmt.Sprintf("; %s by entry %d", ItemKey(x.Name), x.Version)
	}
	return out
}

// The oldest deletions are forgotten first, by their number and by the length of their names. The
// state says so, and a snapshot keeps that.
func TestDeletionsAreForgotten(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, test := range []struct {
		name   string
		length int // of a key
		number int
	}{
		{"many", 6, maxDeletions},
		{"long names", MaxItemOps * 8, maxDeletionBytes / (MaxItemOps*8 + 2)},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := New()
			for n := range test.number + 10 {
				name := ItemName("b", fmt.Sprintf("%0*d", test.length, n))
				putItem(s, name, &Item{Version: 1, Renewed: 1}, nil)
				deleteItem(s, Deletion{Name: name, Version: uint64(100 + n)}, nil)
			}
			if s.Items.Forgotten != 109 || s.Items.deletions.Len() != test.number {
				t.Errorf("%d are remembered, and those up to entry %d forgotten; want %d and 109", s.Items.deletions.Len(), s.Items.Forgotten, test.number)
			}
			if _, complete := s.Items.Deleted("b\x00", 108); complete {
				t.Error("what is behind entry 108 is said to be complete")
			}
			if all, complete := s.Items.Deleted("b\x00", 109); !complete || len(all) != test.number {
				t.Errorf("behind entry 109 there are %d, complete: %v", len(all), complete)
			}
			if used := s.Used[keyspace.ProgramItems]; used != 0 {
				t.Errorf("%d bytes are left in use", used)
			}
		})
	}
}

// An item that another session has taken over does not end with the first.
func TestItemsTakenOver(t *testing.T) {
	s := New()
	for number, node := range []string{"a", "b"} {
		putItem(s, "b\x00k", &Item{Version: 1, Renewed: 1, Node: node, Session: uint64(number)}, nil)
	}
	deleteOwned(s, 7, "a", nil)
	if s.Items.Get("b\x00k") == nil {
		t.Error("it has ended with the session of the first writer")
	}
	deleteOwned(s, 8, "b", nil)
	if s.Items.Get("b\x00k") != nil || s.Used[keyspace.ProgramItems] != 0 {
		t.Error("it has not ended with the session of the second")
	}
}

// An item, or a record, keeps nothing else of its command in memory.
func TestValuesAreApart(t *testing.T) {
	s := New()
	for i, change := range []Change{
		WriteItems{Bucket: "b", MaxRecords: 1 << 20, Ops: []ItemOp{{Key: "x", Put: &ItemPut{Value: []byte("xxx")}}, {Key: "y", Put: &ItemPut{Value: []byte("yyy")}}}},
		PutRecords{Records: []Record{{"x", []byte("xxx")}, {"y", []byte("yyy")}}, MaxState: 1 << 20},
	} {
		b := (&Command{Change: change}).Encode()
		c, err := DecodeCommand(b)
		if err != nil {
			t.Fatal(err)
		}
		s, _ = s.Apply(uint64(i+1), &c, nil)
		clear(b)
	}
	if got := s.Items.Get("b\x00x"); string(got.Value) != "xxx" {
		t.Errorf("the item has %q, and belongs to the buffer of its command", got.Value)
	}
	if got, _ := s.Record("y"); string(got.Value) != "yyy" {
		t.Errorf("the record has %q, and belongs to the buffer of its command", got.Value)
	}
}

// A deletion that comes twice is counted once, so a snapshot changes nothing.
func TestDeletionTwice(t *testing.T) {
	s := New()
	x := Deletion{Name: "b\x00k", Version: 7}
	for range 2 {
		putItem(s, x.Name, &Item{Version: 7, Renewed: 7}, nil)
		deleteItem(s, x, nil)
	}
	if s.Items.bytes != len(x.Name) || s.Items.deletions.Len() != 1 {
		t.Errorf("%d deletions with %d bytes are remembered", s.Items.deletions.Len(), s.Items.bytes)
	}
}

// A backup keeps the items of programs, but not those that belong to a session.
func TestBackupOfItems(t *testing.T) {
	m := full(t, 10)
	kept := m.s.lasting()
	var names []string
	for name := range Each(kept.Items.ByName, nil) {
		names = append(names, string(name))
	}
	if diff := cmp.Diff([]string{"b\x00kept"}, names); diff != "" {
		t.Errorf("the items of the backup (-want +got):\n%s", diff)
	}
	if want := kept.Items.Get("b\x00kept").cost("b\x00kept"); kept.Used[keyspace.ProgramItems] != want {
		t.Errorf("they have %d bytes, want %d", kept.Used[keyspace.ProgramItems], want)
	}
	if m.s.Items.Get("b\x00own") == nil {
		t.Error("the state itself has lost the session's item")
	}
}

// An item that changed after the other state must be another one there, or absent.
func TestItemsExtend(t *testing.T) {
	m := full(t, 10)
	old := m.s
	m.apply(Command{Requires: 2, Node: "x", Change: WriteItems{Bucket: "b", MaxRecords: 1 << 20, Ops: []ItemOp{{Key: "new", Put: &ItemPut{}}}}})
	if err := m.s.Extends(old); err != nil {
		t.Errorf("a later state: %v", err)
	}
	other := *m.s
	putItem(&other, "b\x00new", &Item{Version: old.Index, Renewed: old.Index}, nil)
	if err := other.Extends(old); err == nil || !strings.Contains(err.Error(), "the item of entry") {
		t.Errorf("an item that the earlier state must have: %v", err)
	}
}
