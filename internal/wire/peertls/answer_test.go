package peertls

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadAnswer(t *testing.T) {
	long := Answer{Refused: true, Reason: strings.Repeat("é", 200)}.Encode()
	for _, c := range []struct {
		said []byte
		want string // the error; empty: the connection is accepted
	}{
		{nil, "no answer: EOF"},
		{Answer{}.Encode(), ""},
		{[]byte{answerRefuse}, "refused without a reason: EOF"},
		{[]byte{answerRefuse, 3, 'n', 'o'}, "refused without a reason: unexpected EOF"},
		{[]byte{answerRefuse, 2, 'n', 'o'}, (&RefusedError{"no"}).Error()},
		{long, (&RefusedError{strings.Repeat("é", 127)}).Error()},
		{[]byte{7}, "answer 7 is not known"},
	} {
		a, err := ReadAnswer(bytes.NewReader(c.said))
		if err == nil {
			err = a.Err()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("%v: %v, want %q", c.said, err, c.want)
		}
	}
}

// An answer that can be read is encoded and read again as the same answer.
func FuzzAnswer(f *testing.F) {
	f.Add(Answer{}.Encode())
	f.Add(Answer{Refused: true, Reason: "no"}.Encode())
	f.Add([]byte{answerRefuse, 2, 0xff, 'x'})
	f.Fuzz(func(t *testing.T, said []byte) {
		a, err := ReadAnswer(bytes.NewReader(said))
		if err != nil {
			return
		}
		again, err := ReadAnswer(bytes.NewReader(a.Encode()))
		if diff := cmp.Diff(a, again); diff != "" || err != nil || len(a.Reason) > maxReason {
			t.Fatal(diff, err, len(a.Reason))
		}
	})
}
