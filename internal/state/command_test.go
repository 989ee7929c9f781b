package state

import (
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// changes returns an example of each command, with all fields set, and some with few.
func changes() []Change {
	key := make([]byte, TicketKeySize)
	return []Change{
		StartTerm{},
		OpenSession{Incarnation: "a2", Addr: "a:7373", Processes: []string{"a1", "a2"}, Replaces: 7, Clean: true},
		OpenSession{},
		LeaveSession{Number: 7, HoldDown: true, Stored: 8},
		EndSession{Node: "a", Number: 7, Suspicion: 8, Voters: 9, Silent: time.Second, Stored: 10},
		EndByDeathNotice{Node: "a", Number: 7},
		Suspect{Node: "a", Number: 7, Stored: 8},
		ClearSuspicion{Node: "a", Number: 7, Suspicion: 8},
		SetMember{Member{ID: "a", Name: "one", Addr: "a:7373", InMemory: true, Former: "b", Secrets: "00112233445566ff", Clean: 9, Zone: "z", Witness: true}},
		StoreRecord{Key: "k", Value: []byte("v"), MaxState: 1 << 20, If: &Condition{Key: "other", Index: 7}},
		StoreRecord{Key: "k"},
		PutRecords{Records: []Record{{"k", []byte("v")}, {"other", nil}}, MaxState: 1 << 20},
		DeleteRecords{Key: "k"},
		ClaimRole{Role: "r", Group: "g", Priority: -1, Wait: true, MaxState: 1 << 20, Public: &PublicRole{HoldDown: time.Second, ReleasedOnDeath: true}},
		ClaimRole{Role: "r"},
		ReleaseRole{Role: "r", Claim: 7},
		YieldRole{Role: "r", Claim: 7},
		MoveRole{Role: "r", Node: "a"},
		ExpireHoldDown{Role: "r", Began: 7, After: time.Second},
		RotateTickets{Key: key, Follows: 7},
		DropTickets{Key: key},
		AcceptSecret{Secret: seal.KeyID{1, 2}, Wrapped: []byte("w")},
		UseSecret{Secret: seal.KeyID{1, 2}},
		DropSecrets{Secret: seal.KeyID{1, 2}, Wrapped: []byte("w")},
		RotateKeys{Former: seal.KeyID{3}, Wrapped: []byte("w")},
		ForgetKeys{Wrapped: []byte("w")},
		SetVote{Node: "a", Demotion: &Demotion{Least: 3}},
		SetVote{Node: "a"},
		RaiseVersion{To: Version, Sessions: []SessionOf{{"a", 7}, {"b", 8}}},
		RaiseVersion{To: Version},
		EvictMember{Node: "a"},
		ShutOut{Node: "a", Key: key},
		EndEviction{Node: "a"},
		WriteItems{
			Bucket: "b", MaxRecords: 1 << 20, If: []ItemIf{{"k", IsAbsent, 0}, {"l", IsPresent, 0}, {"m", IsVersion, 7}},
			Ops: []ItemOp{{Key: "k", Put: &ItemPut{Value: []byte("v"), TTL: time.Second, Session: true}}, {Key: "l", Put: &ItemPut{}}, {Key: "m"}, {Key: "n", Refresh: true}},
		},
		WriteItems{Bucket: "b"},
		ExpireItems{Items: []ItemAt{{"b\x00k", 7}, {"b\x00l", 8}}},
	}
}

// lastOfVersion1 is the last number that nodes know that support cluster version 1 alone.
const lastOfVersion1 = numberSetVote

// Each command is read back as it was written, and a part of it is refused, as is one byte more.
func TestCommands(t *testing.T) {
	numbers := make(map[byte]bool)
	for _, change := range changes() {
		t.Run(fmt.Sprintf("%T", change), func(t *testing.T) {
			numbers[change.number()] = true
			if change.number() > lastOfVersion1 && requires(change) < 2 {
				t.Error("a node that supports version 1 does not know it: it needs a method requires")
			}
			c := Command{
				Requires: Version, Node: "a", Session: 2, Seq: 3, Acked: 1, Time: -5, Fences: []Fence{{"r", 1}, {"other", 2}}, Change: change,
			}
			b := c.Encode()
			got, err := DecodeCommand(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for n := range b {
				if _, err := DecodeCommand(b[:n]); err != codec.ErrMalformed {
					t.Errorf("%d of its %d bytes: %v", n, len(b), err)
				}
			}
			if _, err := DecodeCommand(append(b, 0)); err != codec.ErrMalformed {
				t.Errorf("with a byte more: %v", err)
			}
		})
	}
	for n := byte(1); n <= lastNumber; n++ {
		if !numbers[n] {
			t.Errorf("command %d has no example", n)
		}
	}
}

// A command that this version does not know is refused before the rest of it is read.
func TestUnknownCommands(t *testing.T) {
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, codec.ErrMalformed.Error()},
		{"a number before the first", []byte{0, 0}, "command 0 is not known to this version of flotilla; upgrade this node"},
		{"a number after the last", []byte{lastNumber + 1, 0}, fmt.Sprintf("command %d is not known to this version of flotilla; upgrade this node", lastNumber+1)},
		{"a later cluster version", []byte{numberStartTerm, Version + 1}, fmt.Sprintf("command 1: it requires cluster version %d, and this version of flotilla supports %d; upgrade this node", Version+1, Version)},
		{"a raise to a later version", (&Command{Change: RaiseVersion{To: Version + 1}}).Encode(), fmt.Sprintf("command 25: it requires cluster version %d, and this version of flotilla supports %d; upgrade this node", Version+1, Version)},
		{"a raise that requires less than it raises to", []byte{numberRaiseVersion, 1, 0, 0, 0, 0, 0, 0, 2, 0}, codec.ErrMalformed.Error()},
		{"half a ticket key", (&Command{Change: DropTickets{Key: make([]byte, TicketKeySize/2)}}).Encode(), codec.ErrMalformed.Error()},
		{"half a next ticket key", (&Command{Change: RotateTickets{Key: make([]byte, TicketKeySize/2)}}).Encode(), codec.ErrMalformed.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := DecodeCommand(test.b); err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// What is read is written the same way, and can be applied, whatever it is.
func FuzzDecodeCommand(f *testing.F) {
	for _, change := range changes() {
		f.Add((&Command{Node: "a", Session: 1, Seq: 2, Acked: 1, Time: -5, Fences: []Fence{{"r", 1}}, Change: change}).Encode())
		f.Add((&Command{Node: "a", Change: change}).Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		again, err := DecodeCommand(c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("it changes when it is written again:\n%s", diff)
		}
		s := New()
		s, _ = s.Apply(1, &Command{Node: "a", Change: OpenSession{}}, nil)
		s.Apply(2, &c, new(Effects))
	})
}

// Keyring entries are read back as they were written.
func TestKeyringEntry(t *testing.T) {
	want := Keyring{Cluster: "c", Wrapped: []byte("wrapped")}
	b := want.Entry()
	if b[0] != EntryVersion || b[1] != EntryKeyring {
		t.Fatalf("the entry begins with % x", b[:2])
	}
	got, err := DecodeKeyring(b[2:])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := DecodeKeyring(append(b[2:], 0)); err != codec.ErrMalformed {
		t.Errorf("with a byte more: %v", err)
	}
}

// The state machine is pure: it has no way to a clock, a network, a disk or chance.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	banned := []string{"net", "os", "context", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "sync", "github.com/caddyserver/certmagic"}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			for _, b := range banned {
				if path == b || strings.HasPrefix(path, b+"/") {
					t.Errorf("%s imports %s", file, path)
				}
			}
		}
	}
}
