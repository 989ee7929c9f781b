package main

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
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
		warm    bool                                 // a request before it makes a used connection
		retried bool
		fails   string // part of the error; empty: none
	}{
		{"answered", func(_ int64, w http.ResponseWriter) { greet(w) }, false, false, ""},
		{"broken once", func(n int64, w http.ResponseWriter) {
			if n == 1 {
				hangUp(w)
				return
			}
			greet(w)
		}, false, true, ""},
		{"broken twice", func(_ int64, w http.ResponseWriter) { hangUp(w) }, false, true, "EOF"},
		{"used connection broken", func(n int64, w http.ResponseWriter) {
			if n == 2 {
				hangUp(w)
				return
			}
			greet(w)
		}, true, true, ""},
		{"wrong status", func(_ int64, w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, false, false, "answered 502 Bad Gateway"},
		{"wrong answer", func(_ int64, w http.ResponseWriter) { io.WriteString(w, "goodbye") }, false, false, `answered 200 OK: "goodbye"`},
		{"broken within the answer", func(_ int64, w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			greet(w)
			http.NewResponseController(w).Flush()
			hangUp(w)
		}, false, false, "unexpected EOF"},
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
			if (cause != nil) != tt.retried || errors.Is(cause, errReused) != (tt.warm && tt.retried) ||
				(err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("retried because of %v, error %v; want retried %t, error %q", cause, err, tt.retried, tt.fails)
			}
		})
	}
}

// A failed handshake is a failure, and is not tried again.
func TestRequestHandshake(t *testing.T) {
	tests := []struct {
		name   string
		server *tls.Config
		trust  bool
		want   string
	}{
		{"not trusted", nil, false, "x509: certificate signed by unknown authority"},
		{"no certificate", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return nil, errors.New("none")
		}}, true, "remote error: tls: internal error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(http.NotFoundHandler())
			srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it logs the failure
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
			if err == nil || !strings.Contains(err.Error(), tt.want) || cause != nil {
				t.Errorf("retried because of %v, error %v; want %q and no retry", cause, err, tt.want)
			}
		})
	}
}
