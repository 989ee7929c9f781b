package frontend

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"github.com/mholt/acmez/v3"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// mergeTLS keeps what the user sets in a tls.Config, field by field. A field that Go adds is
// included, or this test fails.
func TestMergeTLSKnowsEveryField(t *testing.T) {
	apart := map[string]bool{"NextProtos": true, "GetConfigForClient": true} // see the tests below
	fields := reflect.TypeFor[tls.Config]()
	for i := range fields.NumField() {
		f := fields.Field(i)
		if !f.IsExported() || apart[f.Name] {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			user, ours := new(tls.Config), &tls.Config{NextProtos: []string{"ours"}}
			at := reflect.ValueOf(user).Elem().Field(i)
			at.Set(someValue(t, f.Type))
			mergeTLS(ours, user, new(http.Server), func(*tls.Config) {})
			if got := reflect.ValueOf(ours).Elem().Field(i); !same(got, at) {
				t.Errorf("the user's %v has become %v", at, got)
			}
			if f.Name == "MinVersion" { // the user's always wins
				for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS13} {
					ours, user = &tls.Config{MinVersion: tls.VersionTLS12}, &tls.Config{MinVersion: v}
					if mergeTLS(ours, user, new(http.Server), func(*tls.Config) {}); ours.MinVersion != v {
						t.Errorf("the user's %s has become %s", tls.VersionName(v), tls.VersionName(ours.MinVersion))
					}
				}
				return
			}
			// What ours sets wins.
			set := new(tls.Config)
			own := reflect.ValueOf(set).Elem().Field(i)
			own.Set(someValue(t, f.Type))
			before := reflect.New(f.Type).Elem()
			before.Set(own)
			mergeTLS(set, user, new(http.Server), func(*tls.Config) {})
			if !same(own, before) {
				t.Error("the user's has won over ours")
			}
		})
	}
}

// someValue returns a value of a field that is not zero.
func someValue(t *testing.T, typ reflect.Type) reflect.Value {
	t.Helper()
	v := reflect.New(typ).Elem()
	switch typ.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(1)
	case reflect.Uint16:
		v.SetUint(tls.VersionTLS13)
	case reflect.String:
		v.SetString("x")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(typ, 1, 1))
	case reflect.Array:
		v.Index(0).SetUint(1)
	case reflect.Map:
		v.Set(reflect.MakeMap(typ))
	case reflect.Pointer:
		v.Set(reflect.New(typ.Elem()))
	case reflect.Func:
		v.Set(reflect.MakeFunc(typ, func([]reflect.Value) []reflect.Value { return nil }))
	case reflect.Interface:
		for _, x := range []any{rand.Reader, io.Discard, tls.NewLRUClientSessionCache(1)} {
			if reflect.TypeOf(x).Implements(typ) {
				v.Set(reflect.ValueOf(x))
			}
		}
	}
	if v.IsZero() {
		t.Fatalf("no value for a %v", typ)
	}
	return v
}

// same compares by identity where there is one.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Func, reflect.Slice, reflect.Map, reflect.Pointer:
		return a.Pointer() == b.Pointer()
	}
	return a.Interface() == b.Interface()
}

func TestMergeTLSProtocols(t *testing.T) {
	noHTTP2, noHTTP1 := new(http.Protocols), new(http.Protocols)
	noHTTP2.SetHTTP1(true)
	noHTTP1.SetHTTP2(true)
	for _, tc := range []struct {
		name string
		user []string
		srv  *http.Server
		want []string
	}{
		{"none", nil, &http.Server{}, []string{"h2", "http/1.1", "acme-tls/1"}},
		{"the user's come first", []string{"mine", "http/1.1"}, &http.Server{}, []string{"mine", "http/1.1", "h2", "acme-tls/1"}},
		{"no HTTP/2", []string{"h2"}, &http.Server{Protocols: noHTTP2}, []string{"http/1.1", "acme-tls/1"}},
		{"no HTTP/2, in the old way", nil, &http.Server{TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}},
			[]string{"http/1.1", "acme-tls/1"}},
		{"no HTTP/1.1", nil, &http.Server{Protocols: noHTTP1}, []string{"h2", "acme-tls/1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, config := range []*tls.Config{{NextProtos: tc.user}, nil} {
				if config == nil && tc.user != nil {
					continue
				}
				tc.srv.TLSConfig = config
				ours := &tls.Config{NextProtos: []string{"h2", "http/1.1", "acme-tls/1"}}
				if _, err := (&HTTPS{Server: tc.srv, TLS: ours}).server(testlog.None()); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(ours.NextProtos, tc.want) {
					t.Errorf("%q, want %q", ours.NextProtos, tc.want)
				}
			}
		})
	}
}

// A configuration that either side has for one client is completed by the other side's, so that no
// client gets past ClientAuth.
func TestMergeTLSForClient(t *testing.T) {
	special := func(c *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return func(*tls.ClientHelloInfo) (*tls.Config, error) { return c, nil }
	}
	for _, tc := range []struct {
		name       string
		ours, user *tls.Config
		want       tls.ClientAuthType
	}{
		{"ours", &tls.Config{GetConfigForClient: special(&tls.Config{ServerName: "special"})},
			&tls.Config{ClientAuth: tls.RequireAnyClientCert}, tls.RequireAnyClientCert},
		{"the user's", &tls.Config{},
			&tls.Config{GetConfigForClient: special(&tls.Config{ServerName: "special", ClientAuth: tls.RequestClientCert})}, tls.RequestClientCert},
		{"both", &tls.Config{GetConfigForClient: special(&tls.Config{ServerName: "special"})},
			&tls.Config{GetConfigForClient: special(&tls.Config{ClientAuth: tls.RequestClientCert})}, tls.RequestClientCert},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.ours.NextProtos = []string{"h2"}
			var bound *tls.Config
			mergeTLS(tc.ours, tc.user, new(http.Server), func(c *tls.Config) { bound = c })
			c, err := tc.ours.GetConfigForClient(&tls.ClientHelloInfo{SupportedProtos: []string{"h2"}})
			if err != nil || c == nil {
				t.Fatal(c, err)
			}
			if bound != c {
				t.Error("its tickets are another configuration's")
			}
			if c.ClientAuth != tc.want || c.ServerName != "special" || tc.name == "the user's" && !slices.Equal(c.NextProtos, []string{"h2"}) {
				t.Errorf("%v, %q, %q", c.ClientAuth, c.ServerName, c.NextProtos)
			}
		})
	}
	plain := new(tls.Config)
	mergeTLS(plain, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, new(http.Server), func(*tls.Config) {})
	c, err := plain.GetConfigForClient(&tls.ClientHelloInfo{SupportedProtos: []string{acmez.ACMETLS1Protocol}})
	if err != nil || c.ClientAuth != tls.NoClientCert || !c.SessionTicketsDisabled || !slices.Equal(c.NextProtos, []string{acmez.ACMETLS1Protocol}) {
		t.Errorf("for a challenge: %+v, %v", c, err)
	}
	failing := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, io.ErrUnexpectedEOF }}
	ours := new(tls.Config)
	mergeTLS(ours, failing, new(http.Server), func(*tls.Config) {})
	if _, err := ours.GetConfigForClient(&tls.ClientHelloInfo{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the user's refusal is lost: %v", err)
	}
}
