package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/flotilla-ha/flotilla/examples/s3backup/s3store"
)

// nobody is an address at which nobody listens: that of an ancient service, which no system has.
const nobody = "http://127.0.0.1:1"

// stall is Config.Stall in tests of requests that stand still.
const stall = 500 * time.Millisecond

func slowDown() fault {
	return answer(http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
}

// What is wrong with the configuration, or with the way to the store, is an error of each method.
// It says what was done where, and what helps.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	plain := httptest.NewServer(f.pass)
	t.Cleanup(plain.Close)
	for name, test := range map[string]struct {
		change func(*s3store.Config)
		want   []string
	}{
		"refused": {
			func(c *s3store.Config) { c.Endpoint = nobody },
			[]string{nobody, "connection refused", "start the store, or correct S3_ENDPOINT"},
		},
		"wrong secret": {
			func(c *s3store.Config) { c.Credentials = credentials.NewStaticV4(accessKey, "wrong-"+secretKey, "") },
			[]string{f.URL, "SignatureDoesNotMatch", "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"},
		},
		"unknown key": {
			func(c *s3store.Config) { c.Credentials = credentials.NewStaticV4("nobody", secretKey, "") },
			[]string{f.URL, "InvalidAccessKeyId", "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"},
		},
		"no bucket": {
			func(c *s3store.Config) { c.Bucket = "other-bucket" },
			[]string{f.URL, "s3://other-bucket/", "NoSuchBucket", "make the bucket, or correct S3_BUCKET"},
		},
		"unknown authority": {
			func(c *s3store.Config) { c.Roots = nil },
			[]string{f.URL, "unknown authority", "name the authority of the store in S3_CA_FILE"},
		},
		"no TLS there": {
			func(c *s3store.Config) { c.Endpoint = plain.Listener.Addr().String() },
			[]string{"https://" + plain.Listener.Addr().String(), "HTTP response to HTTPS client", "write http:// before S3_ENDPOINT"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(f)
			test.change(&c)
			s := open(t, c)
			wantError(t, save(t, s, "a", content(10)), append(test.want, "storing s3://", "/a at ")...)
			_, err := s.Load(t.Context(), "a")
			wantError(t, err, append(test.want, "loading s3://", "/a at ")...)
			_, err = s.List(t.Context())
			wantError(t, err, append(test.want, "listing s3://")...)
			if name != "no bucket" { // in which nothing is to be removed
				wantError(t, s.Remove(t.Context(), "a"), append(test.want, "removing s3://", "/a at ")...)
			}
		})
	}
}

// A store that fails while something is stored gives an error, and nothing is stored.
func TestFailingUpload(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault func(f *front) fault
		size  int
		want  []string
		parts bool // stay, because the store does not even remove them
	}{
		"overloaded":               {func(*front) fault { return on("PUT", "", slowDown()) }, 10, []string{"SlowDown", "the store is overloaded or broken"}, false},
		"overloaded in the middle": {func(*front) fault { return on("PUT", "partNumber=2", slowDown()) }, large, []string{"SlowDown", "the store is overloaded or broken"}, false},
		"overloaded at the end":    {func(*front) fault { return on("POST", "uploadId=", slowDown()) }, large, []string{"SlowDown"}, false},
		"overloaded from then on":  {func(*front) fault { return on("", "uploadId=", slowDown()) }, large, []string{"SlowDown", "removing the parts of s3://"}, true},
		"refused": {func(*front) fault {
			return on("PUT", "", answer(http.StatusForbidden, "AccessDenied", "Access Denied."))
		}, 10, []string{"AccessDenied", "must allow s3:PutObject"}, false},
		"wrong region": {func(*front) fault {
			return on("PUT", "", answer(http.StatusBadRequest, "AuthorizationHeaderMalformed", "expecting 'x'"))
		}, 10, []string{"AuthorizationHeaderMalformed", "set S3_REGION"}, false},
		"full": {func(*front) fault {
			return on("PUT", "", answer(http.StatusInsufficientStorage, "XMinioStorageFull", "full"))
		}, 10, []string{"XMinioStorageFull", "make room in the store"}, false},
		"connection cut":            {func(*front) fault { return on("PUT", "", cutRequest) }, 4 << 20, []string{"try again"}, false},
		"connection cut in between": {func(*front) fault { return on("PUT", "partNumber=3", cutRequest) }, large, []string{"try again"}, false},
		"hangs":                     {func(f *front) fault { return on("PUT", "", f.hang) }, 10, []string{"nothing moves for 500ms", "is the store overloaded"}, false},
		"hangs in the middle":       {func(f *front) fault { return on("PUT", "partNumber=2", f.hang) }, large, []string{"nothing moves for 500ms"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t)
			c := config(f)
			hasty := c
			if strings.HasPrefix(name, "hangs") {
				hasty.Stall = stall
			}
			f.set(test.fault(f))
			wantError(t, save(t, open(t, hasty), "a", content(test.size)), append(test.want, "storing s3://backups/"+c.Prefix+"/a at "+f.URL)...)
			f.set(nil)
			if n := incomplete(t, c); test.parts && n != 1 {
				t.Errorf("there are %d incomplete uploads", n)
			}
			if test.parts {
				names, err := open(t, c).List(t.Context())
				if err != nil || len(names) > 0 {
					t.Errorf("what is stored: %q, %v", names, err)
				}
				return
			}
			wantNothing(t, c)
		})
	}
}

// A request that has failed once is made again.
func TestSecondTry(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]fault{
		"part overloaded": on("PUT", "partNumber=2", times(1, slowDown())),
		"part cut":        on("PUT", "partNumber=3", times(1, cutRequest)),
		"end overloaded":  on("POST", "uploadId=", times(2, slowDown())),
		"load overloaded": on("GET", "/a", times(1, slowDown())),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t)
			f.set(fault)
			s, b := open(t, config(f)), content(large)
			if err := save(t, s, "a", b); err != nil {
				t.Fatal(err)
			}
			if got, err := load(t, s, "a"); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%d bytes come back, %v", len(got), err)
			}
		})
	}
}

// A store that fails while something is read gives an error, and never a part without one.
func TestFailingDownload(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault func(f *front) fault
		want  []string
	}{
		"cut":          {func(f *front) fault { return f.half(func() { panic(http.ErrAbortHandler) }) }, []string{"unexpected EOF", "the connection was cut: try again"}},
		"hangs":        {func(f *front) fault { return f.half(func() { f.hang(nil, nil) }) }, []string{"nothing moves for 500ms", "is the store overloaded"}},
		"hangs before": {func(f *front) fault { return f.hang }, []string{"nothing moves for 500ms", "is the store overloaded"}},
		"refused":      {func(*front) fault { return answer(http.StatusForbidden, "AccessDenied", "Access Denied.") }, []string{"AccessDenied", "s3:GetObject"}},
		"broken":       {func(*front) fault { return answer(http.StatusBadGateway, "", "") }, []string{"the store is overloaded or broken"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t)
			c := config(f)
			if err := save(t, open(t, c), "a", content(1<<20)); err != nil {
				t.Fatal(err)
			}
			f.set(on("GET", "/a", test.fault(f)))
			if strings.HasPrefix(name, "hangs") {
				c.Stall = stall
			}
			_, err := load(t, open(t, c), "a")
			wantError(t, err, append(test.want, "loading s3://backups/"+c.Prefix+"/a at "+f.URL)...)
		})
	}
}

// The end of a context ends each method at once, though the store hangs. Nothing is stored.
func TestContext(t *testing.T) {
	enough := errors.New("enough of it")
	for name, test := range map[string]struct {
		hangs fault // a condition
		do    func(ctx context.Context, s *s3store.Store) error
	}{
		"Save": {on("PUT", "partNumber=2", always), func(ctx context.Context, s *s3store.Store) error {
			return s.Save(ctx, "b", func(w io.Writer) error {
				_, err := w.Write(content(large))
				return err
			})
		}},
		"Load": {always, func(ctx context.Context, s *s3store.Store) error {
			_, err := s.Load(ctx, "a")
			return err
		}},
		"List": {always, func(ctx context.Context, s *s3store.Store) error {
			_, err := s.List(ctx)
			return err
		}},
		"Remove": {always, func(ctx context.Context, s *s3store.Store) error { return s.Remove(ctx, "a") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t)
			c := config(f)
			s := open(t, c)
			ctx, cancel := context.WithCancelCause(t.Context())
			f.set(func(w http.ResponseWriter, r *http.Request) bool {
				if !test.hangs(w, r) {
					return false
				}
				cancel(enough)
				return f.hang(w, r)
			})
			began := time.Now()
			err := test.do(ctx, s)
			if !errors.Is(err, enough) {
				t.Errorf("the error does not wrap the cause: %v", err)
			}
			wantError(t, err, "it has not ended in time: enough of it", "s3://backups/"+c.Prefix+"/", f.URL)
			if took := time.Since(began); took > limit/3 {
				t.Errorf("it takes %v", took)
			}
			// Now the context has ended before the call.
			wantError(t, test.do(ctx, s), "it has not ended in time: enough of it")
			f.set(nil)
			wantNothing(t, c)
		})
	}
}

func always(http.ResponseWriter, *http.Request) bool { return true }
