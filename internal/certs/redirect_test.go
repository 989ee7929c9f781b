package certs

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// A visitor is redirected to the same page of the same host, or not at all. The requests go through
// net/http, byte for byte.
func TestRedirectTargets(t *testing.T) {
	c := acmeCerts(t, newMemStorage(), nil)
	if _, err := c.TLSConfig("served.test"); err != nil {
		t.Fatal(err)
	}
	ln := listenLoopback(t)
	srv := &http.Server{Handler: c.HTTPHandler(nil), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(ln) }()
	defer func() { srv.Close(); <-done }()
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "."
	for _, tc := range []struct {
		name, line, host string
		want             string // the Location; empty: 400
	}{
		{"a page", "GET /x?y=%2f HTTP/1.1", "good.test", "https://good.test/x?y=%2f"},
		{"port and case", "GET /x HTTP/1.1", "Good.Test:8080", "https://good.test/x"},
		{"no port after the colon", "GET / HTTP/1.1", "good.test:", "https://good.test/"},
		{"dot at the end", "GET / HTTP/1.1", "good.test.:80", "https://good.test/"},
		{"ASCII form of an international name", "GET / HTTP/1.1", "xn--bcher-kva.test", "https://xn--bcher-kva.test/"},
		{"IPv4", "GET / HTTP/1.1", "192.0.2.1:80", "https://192.0.2.1/"},
		{"IPv6", "GET / HTTP/1.1", "[2001:DB8::1]:80", "https://[2001:db8::1]/"},
		{"escapes stay", "GET /a%2Fb%3Fc/%5c?q=%0d%0a HTTP/1.1", "good.test", "https://good.test/a%2Fb%3Fc/%5c?q=%0d%0a"},
		{"two slashes are a path", "GET //evil.test/x HTTP/1.1", "good.test", "https://good.test//evil.test/x"},
		{"a backslash is a path", `GET /\evil.test/x HTTP/1.1`, "good.test", "https://good.test/%5Cevil.test/x"},
		{"an at sign is a path", "GET /@evil.test HTTP/1.1", "good.test", "https://good.test/@evil.test"},
		{"absolute, served here", "GET http://served.test/x HTTP/1.1", "evil.test", "https://served.test/x"},
		{"longest name", "GET / HTTP/1.1", long + strings.Repeat("d", 61), "https://" + long + strings.Repeat("d", 61) + "/"},

		{"opaque with userinfo", "GET x:@evil.test/ HTTP/1.1", "good.test", ""},
		{"opaque", "GET x:evil.test HTTP/1.1", "good.test", ""},
		{"absolute, not served here", "GET http://evil.test/ HTTP/1.1", "good.test", ""},
		{"absolute with userinfo", "GET http://a@served.test/ HTTP/1.1", "good.test", ""},
		{"absolute of another scheme", "GET ftp://served.test/ HTTP/1.1", "good.test", ""},
		{"absolute without a host", "GET http:///x HTTP/1.1", "good.test", ""},
		{"absolute of a browser's kind", `GET http:\\evil.test/ HTTP/1.1`, "good.test", ""},
		{"asterisk", "GET * HTTP/1.1", "good.test", ""},
		{"authority", "CONNECT evil.test:443 HTTP/1.1", "good.test", ""},
		{"no slash", "GET @evil.test HTTP/1.1", "good.test", ""},
		{"tab in the path", "GET /\t/evil.test HTTP/1.1", "good.test", ""},
		{"fragment", "GET /?a#@evil.test HTTP/1.1", "good.test", ""},
		{"semicolon", "GET / HTTP/1.1", "good.test;evil", ""},
		{"userinfo", "GET / HTTP/1.1", "good.test@evil.test", ""},
		{"userinfo with a port", "GET / HTTP/1.1", "good.test:80@evil.test", ""},
		{"comma", "GET / HTTP/1.1", "good.test,evil.test", ""},
		{"percent", "GET / HTTP/1.1", "good.test%2eevil", ""},
		{"slash", "GET / HTTP/1.1", "evil.test/good.test", ""},
		{"backslash", "GET / HTTP/1.1", `evil.test\good.test`, ""},
		{"underscore", "GET / HTTP/1.1", "good_one.test", ""},
		{"hyphen at the end", "GET / HTTP/1.1", "good-.test", ""},
		{"empty label", "GET / HTTP/1.1", "good..test", ""},
		{"only a dot", "GET / HTTP/1.1", ".", ""},
		{"not ASCII", "GET / HTTP/1.1", "b\u00fccher.test", ""},
		{"port of letters", "GET / HTTP/1.1", "good.test:evil", ""},
		{"port zero", "GET / HTTP/1.1", "good.test:0", ""},
		{"port too large", "GET / HTTP/1.1", "good.test:65536", ""},
		{"two ports", "GET / HTTP/1.1", "good.test:80:80", ""},
		{"IPv6 without brackets", "GET / HTTP/1.1", "2001:db8::1", ""},
		{"IPv6 with a zone", "GET / HTTP/1.1", "[fe80::1%25eth0]", ""},
		{"IPv4 in brackets", "GET / HTTP/1.1", "[192.0.2.1]", ""},
		{"bracket", "GET / HTTP/1.1", "[2001:db8::1", ""},
		{"after the bracket", "GET / HTTP/1.1", "[2001:db8::1]evil.test", ""},
		{"what browsers take for an address", "GET / HTTP/1.1", "192.0.513", ""},
		{"the same in hexadecimal", "GET / HTTP/1.1", "good.0x7f", ""},
		{"label too long", "GET / HTTP/1.1", strings.Repeat("a", 64) + ".test", ""},
		{"name too long", "GET / HTTP/1.1", long + strings.Repeat("d", 62), ""},
		{"no host", "GET / HTTP/1.1", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, tc.line+"\r\nHost: "+tc.host+"\r\nConnection: close\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			want := http.StatusPermanentRedirect
			if tc.want == "" {
				want = http.StatusBadRequest
			}
			if got := res.Header.Get("Location"); res.StatusCode != want || got != tc.want {
				t.Errorf("%d %q, want %d %q", res.StatusCode, got, want, tc.want)
			}
		})
	}
}

// browserHost returns the host that a browser goes to for an https URL, by the WHATWG URL standard.
func browserHost(location string) string {
	location = strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(location)
	rest, ok := strings.CutPrefix(location, "https:")
	if !ok {
		return "not https"
	}
	rest = strings.TrimLeft(rest, "/")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if strings.HasPrefix(rest, "[") {
		rest, _, _ = strings.Cut(rest, "]")
		return rest[1:]
	}
	host, _, _ := strings.Cut(rest, ":")
	return host
}

// For every request line and Host, a Location leads to that Host, for net/url and for browsers.
func FuzzRedirect(f *testing.F) {
	for _, seed := range [][2]string{
		{"GET / HTTP/1.1", "good.test"}, {"GET x:@evil.test/ HTTP/1.1", "good.test"}, {"GET / HTTP/1.1", "good.test;evil"},
		{"GET //evil.test/ HTTP/1.1", "good.test:80"}, {`GET /\evil.test?\@x HTTP/1.1`, "[2001:db8::1]:80"}, {"GET http://evil.test/ HTTP/1.1", "good.test"},
		{"GET http://served.test/?a HTTP/1.1", "good.test"}, {"CONNECT evil.test:443 HTTP/1.1", "good.test"}, {"GET * HTTP/1.1", "192.0.2.1"},
		{"GET /%2e%2e//@evil HTTP/1.0", "good.test."}, {"GET ///\x00\t HTTP/1.1", "a.b:1@c"}, {"GET /?#\r HTTP/1.1", "0x7f.1"},
	} {
		f.Add(seed[0], seed[1])
	}
	c := acmeCerts(f, newMemStorage(), nil)
	if _, err := c.TLSConfig("served.test"); err != nil {
		f.Fatal(err)
	}
	h := c.HTTPHandler(nil)
	ctx := context.WithValue(f.Context(), http.ServerContextKey, new(http.Server))
	f.Fuzz(func(t *testing.T, line, host string) {
		if strings.ContainsAny(line+host, "\r\n") {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + "\r\nHost: " + host + "\r\n\r\n")))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(ctx))
		location := w.Header().Get("Location")
		if w.Code == http.StatusBadRequest && location == "" {
			return
		}
		if w.Code != http.StatusPermanentRedirect {
			t.Fatalf("%q, Host %q: status %d", line, host, w.Code)
		}
		want := browserHost("https://" + strings.ToLower(strings.Trim(host, " \t")))
		want = strings.TrimSuffix(want, ".")
		u, err := url.Parse(location)
		if err != nil {
			t.Fatalf("%q, Host %q: %q: %v", line, host, location, err)
		}
		if u.Host == "served.test" && strings.Contains(line, "http://") {
			want = u.Host
		}
		if ip := net.ParseIP(want); ip != nil && ip.Equal(net.ParseIP(u.Hostname())) {
			want = u.Hostname() // written otherwise
		}
		if u.Scheme != "https" || u.User != nil || u.Hostname() != want || browserHost(location) != want || u.Fragment != "" {
			t.Fatalf("%q, Host %q: %q leads to %q for net/url, to %q for browsers, want %q", line, host, location, u.Hostname(), browserHost(location), want)
		}
	})
}
