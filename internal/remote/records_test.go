package remote_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// roundTrip decodes what m encodes to, and every part of that, which must not decode.
func roundTrip[M interface{ Encode() []byte }](t *testing.T, m M, decode func([]byte) (M, error)) {
	t.Helper()
	b := m.Encode()
	got, err := decode(b)
	if diff := cmp.Diff(m, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
		t.Errorf("%T after a round trip, error %v (-want +got):\n%s", m, err, diff)
	}
	for n := range b {
		if _, err := decode(b[:n]); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("%T decodes from its first %d of %d bytes: %v", m, n, len(b), err)
		}
	}
	if _, err := decode(append(bytes.Clone(b), 0)); !errors.Is(err, codec.ErrMalformed) {
		t.Errorf("%T decodes with a byte too many: %v", m, err)
	}
}

func TestMessages(t *testing.T) {
	roundTrip(t, remote.ListRequest{Dir: "a", After: "a/\xff"}, remote.DecodeListRequest)
	roundTrip(t, remote.ListReply{Keys: []string{"a", ""}, More: true}, remote.DecodeListReply)
	roundTrip(t, remote.ListReply{Current: true}, remote.DecodeListReply)
	roundTrip(t, remote.LoadRequest{Keys: []string{"a", "b/c"}}, remote.DecodeLoadRequest)
	roundTrip(t,
		remote.LoadReply{Values: []remote.Value{{Found: true, Bytes: []byte("1")}, {}, {Found: true}}},
		remote.DecodeLoadReply,
	)
	roundTrip(t,
		remote.PutRequest{Mode: remote.Overwrite, Records: []remote.Record{{Key: "a", Value: []byte{0}}, {Key: "b"}}},
		remote.DecodePutRequest,
	)
	roundTrip(t, remote.PutReply{Outcome: remote.Refused, Reason: "no"}, remote.DecodePutReply)
	roundTrip(t, remote.StatusRequest{Node: "a"}, remote.DecodeStatusRequest)
	roundTrip(t,
		remote.StatusReply{
			Nodes: []remote.NodeStatus{{ID: "a", Name: "n", Addr: "n:1", Status: []byte("{}")}, {ID: "b", Why: "no"}},
		},
		remote.DecodeStatusReply,
	)
	roundTrip(t, remote.RemoveRequest{Node: "a", Force: true}, remote.DecodeRemoveRequest)
	roundTrip(t, remote.VoteRequest{Node: "a", Demote: true, Few: true}, remote.DecodeVoteRequest)
	roundTrip(t, remote.TransferRequest{From: "a", To: "b"}, remote.DecodeTransferRequest)
	roundTrip(t, remote.MoveRequest{Role: "r", Fence: 1 << 40, To: "b"}, remote.DecodeMoveRequest)
	roundTrip(t, remote.DrainRequest{Node: "a", Undo: true}, remote.DecodeDrainRequest)
	roundTrip(t, remote.BackupRequest{}, remote.DecodeBackupRequest)
	roundTrip(t, remote.UpgradeRequest{}, remote.DecodeUpgradeRequest)
	roundTrip(t, remote.RotateRequest{What: remote.RotateSecret, Have: []seal.KeyID{{1}, {2}}, Begun: 3}, remote.DecodeRotateRequest)
	roundTrip(t, remote.EvictRequest{Node: "n", Have: []seal.KeyID{{1}, {2}}}, remote.DecodeEvictRequest)
	roundTrip(t, remote.EvictReply{RotateReply: remote.RotateReply{Step: 5, Doing: "it"}, Notes: []string{"a"}}, remote.DecodeEvictReply)
	roundTrip(t,
		remote.RotateReply{Done: true, Refused: true, Step: 1, Steps: 4, Doing: "it", Begun: 300, Waiting: []string{"a", "b"}},
		remote.DecodeRotateReply,
	)
	roundTrip(t, remote.DiagnoseRequest{Node: "a", Stacks: true}, remote.DecodeDiagnoseRequest)
	roundTrip(t, remote.DiagnoseReply{Report: []byte("{}"), Stacks: []byte("goroutine"), Why: "no"}, remote.DecodeDiagnoseReply)
	roundTrip(t, remote.Answer{Refused: true, Text: "no"}, remote.DecodeAnswer)
	for name, err := range map[string]error{
		"mode":         second(remote.DecodePutRequest(remote.PutRequest{Mode: 3}.Encode())),
		"outcome":      second(remote.DecodePutReply(remote.PutReply{Outcome: 6}.Encode())),
		"outcome zero": second(remote.DecodePutReply(remote.PutReply{}.Encode())),
		"key ID":       second(remote.DecodeRotateRequest([]byte{0, 1, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0})),
		"bool":         second(remote.DecodeListReply([]byte{2, 0, 0})),
	} {
		if !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("a %s that is not known decodes: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// Whatever decodes is what it encodes to again, or encodes shorter: numbers may come in more bytes
// than they need.
func FuzzMessages(f *testing.F) {
	f.Add(remote.ListReply{Keys: []string{"a", "b"}, More: true}.Encode())
	f.Add(remote.LoadReply{Values: []remote.Value{{Found: true, Bytes: []byte("1")}, {}}}.Encode())
	f.Add(remote.PutRequest{Mode: remote.Keep, Records: []remote.Record{{Key: "a", Value: []byte("1")}}}.Encode())
	f.Add(remote.StatusReply{Nodes: []remote.NodeStatus{{ID: "a", Status: []byte("{}")}, {Why: "no"}}}.Encode())
	f.Add(remote.MoveRequest{Role: "r", Fence: 300, To: "b"}.Encode())
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, remote.DecodeListRequest)
		again(t, b, remote.DecodeListReply)
		again(t, b, remote.DecodeLoadRequest)
		again(t, b, remote.DecodeLoadReply)
		again(t, b, remote.DecodePutRequest)
		again(t, b, remote.DecodePutReply)
		again(t, b, remote.DecodeStatusRequest)
		again(t, b, remote.DecodeStatusReply)
		again(t, b, remote.DecodeRemoveRequest)
		again(t, b, remote.DecodeVoteRequest)
		again(t, b, remote.DecodeTransferRequest)
		again(t, b, remote.DecodeMoveRequest)
		again(t, b, remote.DecodeDrainRequest)
		again(t, b, remote.DecodeRotateRequest)
		again(t, b, remote.DecodeRotateReply)
		again(t, b, remote.DecodeEvictRequest)
		again(t, b, remote.DecodeEvictReply)
		again(t, b, remote.DecodeUpgradeRequest)
		again(t, b, remote.DecodeDiagnoseRequest)
		again(t, b, remote.DecodeDiagnoseReply)
		again(t, b, remote.DecodeAnswer)
	})
}

func again[M interface{ Encode() []byte }](t *testing.T, b []byte, decode func([]byte) (M, error)) {
	t.Helper()
	m, err := decode(b)
	if err != nil {
		return
	}
	if len(m.Encode()) > len(b) {
		t.Errorf("%T decodes from %d bytes and encodes to %d", m, len(b), len(m.Encode()))
	}
	if other, err := decode(m.Encode()); err != nil || !cmp.Equal(m, other, cmpopts.EquateEmpty()) {
		t.Errorf("%T changes in a round trip: %v", m, err)
	}
}
