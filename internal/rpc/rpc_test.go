package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

type text string

func (t text) Encode() []byte { return []byte(t) }

func decodeText(b []byte) (text, error) {
	if len(b) == 0 {
		return "", codec.ErrMalformed
	}
	return text(b), nil
}

func TestServe(t *testing.T) {
	for _, test := range []struct {
		name, body string
		err        error
		status     int
		answer     string
	}{
		{"an answer", "a", nil, http.StatusOK, "for a"},
		{"a body that cannot be decoded", "", nil, http.StatusBadRequest, codec.ErrMalformed.Error()},
		{"the node does not lead", "a", fmt.Errorf("no: %w", ErrNotLeader), http.StatusMisdirectedRequest, ErrNotLeader.Error()},
		{"there is no leader", "a", errs.ErrNoLeader, http.StatusMisdirectedRequest, errs.ErrNoLeader.Error()},
		{"another process has taken over", "a", &SupersededError{"it is a copy"}, http.StatusConflict, "it is a copy"},
		{"another error", "a", errors.New("the disk is full"), http.StatusServiceUnavailable, "the disk is full"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := Serve(decodeText, func(_ context.Context, _ string, in text) (text, error) { return "for " + in, test.err })
			w := httptest.NewRecorder()
			h(w, httptest.NewRequest(http.MethodPost, Hello, strings.NewReader(test.body)))
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.answer) {
				t.Errorf("%d %q, want %d with %q", w.Code, w.Body, test.status, test.answer)
			}
		})
	}
}

func TestWhatAnErrorSays(t *testing.T) {
	for _, test := range []struct {
		err                 error
		refused, superseded bool
	}{
		{errors.New("connection refused"), false, false},
		{&wire.RPCError{Status: http.StatusServiceUnavailable}, true, false},
		{fmt.Errorf("opening: %w", &wire.RPCError{Status: http.StatusConflict}), true, true},
	} {
		if IsRefused(test.err) != test.refused || IsSuperseded(test.err) != test.superseded {
			t.Errorf("%v: refused %v, superseded %v", test.err, IsRefused(test.err), IsSuperseded(test.err))
		}
	}
}
