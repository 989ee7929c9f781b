package main

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

func TestRequest(t *testing.T) {
	greet := func(w http.ResponseWriter) { io.WriteString(w, "hello from test\n") }
	hangUp := func(w http.ResponseWriter) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			c.Close()
		}
	}
	tests := []struct {
		name    string
		serve   func(n int64, w http.ResponseWriter) // the answer to the n-th request
		warm    bool                                 // a request goes before, so that there is a used connection
		retried bool
		fails   bool
	}{
		{"answered", func(_ int64, w http.ResponseWriter) { greet(w) }, false, false, false},
		{"broken once", func(n int64, w http.ResponseWriter) {
			if n == 1 {
				hangUp(w)
				return
			}
			greet(w)
		}, false, true, false},
		{"broken twice", func(_ int64, w http.ResponseWriter) { hangUp(w) }, false, true, true},
		{"used connection broken", func(n int64, w http.ResponseWriter) {
			if n == 2 {
				hangUp(w)
				return
			}
			greet(w)
		}, true, true, false},
		{"wrong status", func(_ int64, w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, false, false, true},
		{"wrong answer", func(_ int64, w http.ResponseWriter) { io.WriteString(w, "goodbye") }, false, false, true},
		{"broken within the answer", func(_ int64, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			greet(w)
			http.NewResponseController(w).Flush()
			hangUp(w)
		}, false, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var n atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tt.serve(n.Add(1), w) }))
			defer srv.Close()
			if tt.warm {
				if _, err := request(t.Context(), srv.Client(), srv.URL); err != nil {
					t.Fatal(err)
				}
			}
			cause, err := request(t.Context(), srv.Client(), srv.URL)
			if (cause != nil) != tt.retried || errors.Is(cause, errReused) != (tt.warm && tt.retried) || (err != nil) != tt.fails {
				t.Errorf("retried because of %v, error %v; want retried %t, error %t", cause, err, tt.retried, tt.fails)
			}
		})
	}
}

// A handshake that fails is a failure, and no reason to try again.
func TestRequestHandshake(t *testing.T) {
	tests := []struct {
		name   string
		server *tls.Config
		trust  bool
	}{
		{"not trusted", nil, false},
		{"no certificate", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return nil, errors.New("none")
		}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(http.NotFoundHandler())
			srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it is told of the failure
			srv.TLS = tt.server
			srv.StartTLS()
			defer srv.Close()
			if tt.server != nil {
				srv.TLS.Certificates = nil // StartTLS adds one
			}
			client := srv.Client()
			if !tt.trust {
				client = &http.Client{Transport: new(http.Transport)}
			}
			cause, err := request(t.Context(), client, srv.URL)
			if err == nil || cause != nil {
				t.Errorf("retried because of %v, error %v; want an error and no retry", cause, err)
			}
		})
	}
}
