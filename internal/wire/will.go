package wire

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
)

// testator is whose death the bearer of a will may tell of.
type testator struct {
	node    string
	session uint64
}

// testatorKey is the key of a *testator in the context of a call.
type testatorKey struct{}

// Will makes a will for a session of node, see package will: whoever has it can have Config.Will called at the nodes at addrs, and do
// nothing else.
func (p *Port) Will(node string, session uint64, addrs []string) ([]byte, error) {
	secret := p.cfg.Secrets[0]
	id, err := signed(secret, willName("/"+madeUpID()+"/"+node+"/"+strconv.FormatUint(session, 10)), x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	w := deathnotice.Notice{
		Addrs: addrs, ServerName: serverName(id.kid), Protocol: alpnCall, Time: certNow().Unix(),
		CA: id.ca.Raw, Cert: id.leaf.Certificate[0], Key: id.leaf.PrivateKey.(ed25519.PrivateKey).Seed(),
	}
	return w.Encode(), nil
}

// willName is the name of the bearer of a will: an ID made up for it, the node and the session.
func willName(path string) *url.URL { return &url.URL{Scheme: "flotilla", Host: "will", Path: path} }

// bearerOf returns what the certificate of a will's bearer says: a name made up for the bearer, and whose will it is.
func bearerOf(cert *x509.Certificate) (bearer string, t *testator, ok bool) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != "flotilla" || cert.URIs[0].Host != "will" {
		return "", nil, false
	}
	parts := strings.Split(strings.TrimPrefix(cert.URIs[0].Path, "/"), "/")
	if len(parts) != 3 || !validID(parts[0]) || !validID(parts[1]) {
		return "", nil, false
	}
	session, err := strconv.ParseUint(parts[2], 10, 64)
	return parts[0], &testator{parts[1], session}, err == nil && session != 0
}

// execute serves the bearer of a will, whatever it asks for.
func (c *calls) execute(w http.ResponseWriter, r *http.Request, t *testator) {
	if c.port.cfg.Will == nil {
		http.Error(w, "no wills are taken here", http.StatusForbidden)
		return
	}
	if err := c.port.cfg.Will(r.Context(), t.node, t.session); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func testatorOf(ctx context.Context) *testator {
	t, _ := ctx.Value(testatorKey{}).(*testator)
	return t
}
