package replica

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

func storing(value []byte) *state.Command {
	return &state.Command{Node: "a", Session: 1, Seq: 2, Change: state.StoreRecord{Key: "k", Value: value}}
}

// wantKept fails the test unless an Opener still has what is in an entry, if kept is true. It looks
// with keys that open nothing.
func wantKept(t *testing.T, o *Opener, entry, value []byte, kept bool) {
	t.Helper()
	c, err := o.Take(seal.NewKeyring(), entry)
	switch {
	case !kept && !errors.Is(err, errs.ErrSealed):
		t.Errorf("an entry that must be opened again: %+v, %v", c, err)
	case kept && err != nil:
		t.Error(err)
	case kept && !bytes.Equal(c.Change.(state.StoreRecord).Value, value):
		t.Errorf("the command is %+v", c)
	}
}

// A command is opened once, and not kept once it is applied. The entry must be the same, byte for
// byte.
func TestOpener(t *testing.T) {
	keys, value := seal.NewKeyring(), bytes.Repeat([]byte("v"), 100)
	for name, known := range map[string]func(o *Opener) []byte{
		"sealed": func(o *Opener) []byte { return o.Seal(keys, storing(value)) },
		"opened": func(o *Opener) []byte {
			entry := state.SealCommand(keys, storing(value))
			if _, err := o.Open(keys, entry); err != nil {
				t.Error(err)
			}
			return entry
		},
	} {
		t.Run(name, func(t *testing.T) {
			var o Opener
			entry := known(&o)
			other := bytes.Clone(entry)
			other[len(other)-1]++
			wantKept(t, &o, other, nil, false)
			wantKept(t, &o, entry, value, true)
			wantKept(t, &o, entry, nil, false)
			if c, err := o.Take(keys, entry); err != nil || c.Seq != 2 {
				t.Errorf("a command that is opened again is %+v, %v", c, err)
			}
			if len(o.opened) != 0 || o.size != 0 {
				t.Errorf("%d commands of %d bytes are left", len(o.opened), o.size)
			}
		})
	}
	var o Opener
	for _, bad := range []struct {
		entry []byte
		want  error
	}{
		{nil, codec.ErrMalformed},
		{make([]byte, 200), codec.ErrMalformed},
		{state.SealCommand(seal.NewKeyring(), storing(nil)), errs.ErrSealed},
	} {
		if _, err := o.Open(keys, bad.entry); !errors.Is(err, bad.want) || len(o.opened) > 0 {
			t.Errorf("the error is %v, want %v, and %d commands are kept", err, bad.want, len(o.opened))
		}
	}
}

// What a caller does with its value after the call does not matter.
func TestSealedIsACopy(t *testing.T) {
	var o Opener
	value := []byte("before")
	entry := o.Seal(seal.NewKeyring(), storing(value))
	copy(value, "after!")
	wantKept(t, &o, entry, []byte("before"), true)
}

// A follower opens entries while they are written. It leaves the rest to those who apply them.
func TestOpenAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, value := seal.NewKeyring(), []byte("v")
		var o Opener
		good := state.SealCommand(keys, storing(value))
		entries := []*raft.Log{
			{Type: raft.LogConfiguration, Data: state.SealCommand(keys, storing(value))},
			{Type: raft.LogCommand, Data: state.SealCommand(seal.NewKeyring(), storing(value))},
			{Type: raft.LogCommand, Data: good},
		}
		stop := o.Ahead(keys, entries)
		synctest.Wait()
		stop()
		for _, e := range entries {
			wantKept(t, &o, e.Data, value, slices.Equal(e.Data, good))
		}
		var stopped atomic.Bool
		stopped.Store(true)
		o.keep(opened{good, storing(value).Encode()}, &stopped)
		wantKept(t, &o, good, nil, false)
	})
}

// Commands that are never applied do not pile up.
func TestOpenerIsBounded(t *testing.T) {
	var o Opener
	keys, value, most := seal.NewKeyring(), make([]byte, 64<<10), 0
	for range 3 * openedBytes / len(value) {
		o.Seal(keys, storing(value))
		most = max(most, o.size)
	}
	if most < openedBytes/2 || most > openedBytes+2*len(value) {
		t.Errorf("at most %d bytes are kept, want about %d", most, openedBytes)
	}
}
