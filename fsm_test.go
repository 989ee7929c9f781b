package flotilla

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

func TestEntriesThatStopTheNode(t *testing.T) {
	secret, other := seal.Secret{1}, seal.Secret{2}
	keys := seal.NewKeyring()
	wrapped, err := keys.Wrap(secret)
	if err != nil {
		t.Fatal(err)
	}
	ring := state.Keyring{Cluster: "c", Wrapped: wrapped}.Entry()
	command := func(plain []byte) []byte {
		return append([]byte{state.EntryVersion, state.EntryCommand}, keys.Seal(plain)...)
	}
	change := state.Command{Change: state.StoreRecord{Key: "k", Value: []byte("v")}}
	for name, test := range map[string]struct {
		secrets []seal.Secret
		entries [][]byte
		want    string
	}{
		"empty":                   {[]seal.Secret{secret}, [][]byte{{}}, "malformed"},
		"another version":         {[]seal.Secret{secret}, [][]byte{{9, 'C'}}, "upgrade"},
		"another kind":            {[]seal.Secret{secret}, [][]byte{{state.EntryVersion, 'Z'}}, "upgrade"},
		"another command":         {[]seal.Secret{secret}, [][]byte{ring, command([]byte{99, 0})}, "command 99 is not known"},
		"another secret":          {[]seal.Secret{other}, [][]byte{ring}, "cannot open"},
		"command without keyring": {[]seal.Secret{secret}, [][]byte{{state.EntryVersion, 'C', 1}}, "before the keyring"},
		"another key":             {[]seal.Secret{secret}, [][]byte{ring, state.SealCommand(seal.NewKeyring(), &state.Command{Change: state.StartTerm{}})}, "cannot open"},
		"part of a command":       {[]seal.Secret{secret}, [][]byte{ring, command(change.Encode()[:8])}, "malformed"},
		"more than a command":     {[]seal.Secret{secret}, [][]byte{ring, command(append(change.Encode(), 0))}, "malformed"},
		"a later cluster version": {[]seal.Secret{secret}, [][]byte{ring, state.SealCommand(keys, &state.Command{Requires: state.Version + 1, Change: state.StartTerm{}})}, "requires cluster version 3, and this version of flotilla supports 2"},
		"half a ticket key":       {[]seal.Secret{secret}, [][]byte{ring, state.SealCommand(keys, &state.Command{Change: state.DropTickets{Key: make([]byte, state.TicketKeySize/2)}})}, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			failed := make(chan error, 1)
			f := testFSM(applied.New(), test.secrets, testlog.None(), func(err error) { failed <- err }, func(*state.Effects) {})
			done := make(chan struct{})
			finished := false
			go func() {
				defer close(done)
				for i, e := range test.entries {
					f.ApplyBatch([]*raft.Log{{Index: uint64(i + 1), Type: raft.LogCommand, Data: e}})
				}
				finished = true
			}()
			<-done
			if finished {
				t.Fatal("the entry was passed over")
			}
			if err := <-failed; !strings.Contains(err.Error(), test.want) {
				t.Errorf("the node stops with %q, want %q in it", err, test.want)
			}
		})
	}
}

func TestRestoreKeepsTheStateOnError(t *testing.T) {
	f := testFSM(applied.New(), []seal.Secret{{1}}, testlog.None(), func(error) {}, func(*state.Effects) {})
	before := f.State()
	if err := f.Restore(io.NopCloser(strings.NewReader("not a snapshot"))); !errors.Is(err, ErrSealed) || f.State() != before {
		t.Errorf("error %v, and the state changed: %v", err, f.State() != before)
	}
}

// The state never goes back, whatever raft replays: a voter that has applied a suspicion and acted
// on it must go on knowing it.
func TestStateNeverGoesBack(t *testing.T) {
	secret := seal.Secret{1}
	keys := seal.NewKeyring()
	wrapped, err := keys.Wrap(secret)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	f := testFSM(applied.New(), []seal.Secret{secret}, testlog.None(), func(err error) { t.Error(err) }, func(*state.Effects) { told++ })
	entries := []*raft.Log{
		{Index: 1, Data: state.Keyring{Cluster: "c", Wrapped: wrapped}.Entry()},
		{Index: 2, Data: state.SealCommand(keys, &state.Command{Node: "a", Change: state.OpenSession{Incarnation: "boot"}})},
		{Index: 3, Data: state.SealCommand(keys, &state.Command{Change: state.Suspect{Node: "a", Number: 2}})},
	}
	f.ApplyBatch(entries[:2])
	var snapshot bytes.Buffer
	if err := state.WriteSnapshot(&snapshot, f.State()); err != nil {
		t.Fatal(err)
	}
	f.ApplyBatch(entries[2:])
	before := f.State()
	if err := f.Restore(io.NopCloser(&snapshot)); err != nil || f.State() != before {
		t.Errorf("an older snapshot is restored over a newer state: %v, index %d", err, f.State().Index)
	}
	f.ApplyBatch(entries[:2])
	if f.State().Index != 3 {
		t.Errorf("after the first entries again the state is that of index %d", f.State().Index)
	}
	f.ApplyBatch(entries[1:])
	if ses := f.State().Session("a"); ses == nil || ses.Suspect != 3 || f.State().Index != 3 {
		t.Errorf("after a replay the session is %+v at index %d", ses, f.State().Index)
	}
}

// Two leaders may each have made keys for a new cluster: those of the first entry are the
// cluster's.
func TestFirstKeyringCounts(t *testing.T) {
	secret := seal.Secret{1}
	var entries []*raft.Log
	var rings []*seal.Keyring
	for i, name := range []string{"one", "two"} {
		keys := seal.NewKeyring()
		wrapped, err := keys.Wrap(secret)
		if err != nil {
			t.Fatal(err)
		}
		rings = append(rings, keys)
		entries = append(entries, &raft.Log{Index: uint64(i + 1), Data: state.Keyring{Cluster: name, Wrapped: wrapped}.Entry()})
	}
	entries = append(entries, &raft.Log{Index: 3, Data: state.SealCommand(rings[0], &state.Command{Node: "a", Change: state.OpenSession{Incarnation: "boot"}})})
	f := testFSM(applied.New(), []seal.Secret{secret}, testlog.None(), func(err error) { t.Error(err) }, func(*state.Effects) {})
	done := make(chan struct{})
	go func() { // which ends if an entry cannot be opened
		defer close(done)
		f.ApplyBatch(entries)
	}()
	<-done
	if s := f.State(); s.Cluster != "one" || s.Index != 3 || s.Session("a") == nil {
		t.Errorf("after the keys of two clusters it is %q, at index %d", s.Cluster, s.Index)
	}
}
