package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// errStalled ends a request in which nothing moves.
var errStalled = errors.New("nothing moves")

// impatient is an http.RoundTripper that gives up a request when nothing has moved for a time. A
// limit for the whole request would have to fit the size of a backup.
type impatient struct {
	next  http.RoundTripper
	limit time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t impatient) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(t.limit, func() { cancel(fmt.Errorf("%w for %v", errStalled, t.limit)) })
	moved := func() { timer.Reset(t.limit) }
	stop := func() {
		timer.Stop()
		cancel(nil)
	}
	req = req.WithContext(ctx)     // a copy
	why := func(err error) error { // why it was given up, or err if it has failed by itself
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			return cause
		}
		return err
	}
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watched{ReadCloser: req.Body, moved: moved, why: why, closed: func() {}}
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		stop()
		return nil, why(err)
	}
	moved()
	resp.Body = &watched{ReadCloser: resp.Body, moved: moved, why: why, closed: stop}
	return resp, nil
}

// watched is a body that says when it moves.
type watched struct {
	io.ReadCloser
	moved, closed func()
	why           func(error) error
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.moved()
	}
	if err != nil && err != io.EOF {
		err = w.why(err)
	}
	return n, err
}

// Close implements io.Closer.
func (w *watched) Close() error {
	defer w.closed()
	return w.ReadCloser.Close()
}
