package replica

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

func sampleRequest() ApplyRequest {
	return ApplyRequest{Proposals: []Proposal{{Session: 1, Seq: 2, Entry: []byte("one")}, {Session: 1, Seq: 3, Entry: []byte("two")}}}
}

func TestMessages(t *testing.T) {
	confirm, term := ConfirmReply{Index: 7, Last: 9, Known: true, Sum: 1 << 63}, TermReply{Term: 300}
	for _, test := range []struct {
		name   string
		body   []byte
		want   any
		decode func([]byte) (any, error)
	}{
		{"apply", sampleRequest().Encode(), sampleRequest(), func(b []byte) (any, error) { return DecodeApplyRequest(b) }},
		{"confirm", confirm.Encode(), confirm, func(b []byte) (any, error) { return DecodeConfirmReply(b) }},
		{"term", term.Encode(), term, func(b []byte) (any, error) { return DecodeTermReply(b) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.decode(test.body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			for name, b := range map[string][]byte{"empty": nil, "cut": test.body[:len(test.body)-1], "more": append(test.body, 0)} {
				if got, err := test.decode(b); !errors.Is(err, codec.ErrMalformed) {
					t.Errorf("%s: %+v, %v", name, got, err)
				}
			}
		})
	}
	if _, err := DecodeApplyRequest(ApplyRequest{}.Encode()); !errors.Is(err, codec.ErrMalformed) {
		t.Errorf("a request without a proposal: %v", err)
	}
}

// fuzz checks that what is decoded is encoded to something that is decoded to the same.
func fuzz[M interface{ Encode() []byte }](f *testing.F, sample M, decode func([]byte) (M, error)) {
	f.Add(sample.Encode())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(m.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzApplyRequest(f *testing.F) { fuzz(f, sampleRequest(), DecodeApplyRequest) }

func FuzzConfirmReply(f *testing.F) {
	fuzz(f, ConfirmReply{Index: 1, Last: 2, Known: true, Sum: 3}, DecodeConfirmReply)
}

func FuzzTermReply(f *testing.F) { fuzz(f, TermReply{Term: 5}, DecodeTermReply) }
