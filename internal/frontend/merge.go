package frontend

import (
	"crypto/tls"
	"net/http"
	"reflect"
	"slices"

	"github.com/mholt/acmez/v3"
)

// mergeTLS adds what the user has set to our configuration. It changes ours in place, so that all
// code that has it sees the change. Fields that ours sets win, except MinVersion. NextProtos has
// both lists, and GetConfigForClient asks both sides. mergeTLS calls bind with each further
// configuration that results.
func mergeTLS(ours, user *tls.Config, srv *http.Server, bind func(*tls.Config)) {
	base := ours.Clone() // for handshakes that get another configuration
	own, theirs := base.GetConfigForClient, user.GetConfigForClient
	fillTLS(ours, user, srv)
	// An authority that comes for a challenge has no certificate to show. It is no client of the
	// user's: its connection ends with the handshake.
	challenge := base.Clone()
	challenge.NextProtos = []string{acmez.ACMETLS1Protocol}
	challenge.SessionTicketsDisabled = true
	ours.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		o, err := configFor(own, hello, base)
		if err != nil {
			return nil, err
		}
		if slices.Equal(hello.SupportedProtos, challenge.NextProtos) {
			return challenge, nil
		}
		if theirs != nil {
			Slots{}.Release(hello.Conn) // the user's function may take its time
		}
		u, err := configFor(theirs, hello, user)
		if err == nil {
			err = Slots{}.Acquire(hello)
		}
		if err != nil || o == base && u == user {
			return nil, err
		}
		merged := o.Clone()
		fillTLS(merged, u, srv)
		bind(merged)
		return merged, nil
	}
}

// configFor returns the configuration that f, which may be nil, has for a client, or c if it has
// none.
func configFor(
	f func(*tls.ClientHelloInfo) (*tls.Config, error), hello *tls.ClientHelloInfo, c *tls.Config,
) (*tls.Config, error) {
	if f == nil {
		return c, nil
	}
	got, err := f(hello)
	if got == nil || err != nil {
		return c, err
	}
	return got, nil
}

// fillTLS sets those fields of ours that are zero to the values of user. It uses reflection to
// include fields that Go will add.
func fillTLS(ours, user *tls.Config, srv *http.Server) {
	to, from := reflect.ValueOf(ours).Elem(), reflect.ValueOf(user).Elem()
	for i := range to.NumField() {
		if to.Type().Field(i).IsExported() && to.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
	if user.MinVersion != 0 {
		ours.MinVersion = user.MinVersion
	}
	protos := slices.Clone(user.NextProtos)
	for _, p := range ours.NextProtos {
		if !slices.Contains(protos, p) {
			protos = append(protos, p)
		}
	}
	ours.NextProtos = enabledProtocols(protos, srv)
}

// enabledProtocols returns those of protos that srv speaks. The user may have switched HTTP/2 off
// in any of the ways that http.Server has.
func enabledProtocols(protos []string, srv *http.Server) []string {
	_, own := srv.TLSNextProto["h2"]
	h1, h2 := true, own || srv.TLSNextProto == nil
	if srv.Protocols != nil {
		h1, h2 = srv.Protocols.HTTP1(), srv.Protocols.HTTP2()
	}
	return slices.DeleteFunc(slices.Clone(protos), func(p string) bool {
		return p == "h2" && !h2 || p == "http/1.1" && !h1
	})
}
