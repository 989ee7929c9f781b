package peertls

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/url"
	"strconv"
	"strings"
)

const (
	uriScheme  = "flotilla"
	hostNode   = "node"         // /<node ID> or /<node ID>/<incarnation>
	hostBearer = "death-notice" // /<ID made up for the bearer>/<node ID>/<session>
)

// Peer is what a certificate says about its owner: a node, or the bearer of a death notice.
type Peer struct {
	ID          string  // the node; for a bearer an ID made up for it
	Incarnation string  // which run of the node's process; empty: it does not say
	Notice      *Notice // not nil: the peer is no node, but the bearer of this death notice
}

// Notice names the session whose death a bearer may report. The bearer may do nothing else.
type Notice struct {
	Node    string // the node ID
	Session uint64 // never 0
}

// ValidID reports whether id has the form of a node ID: 32 lower-case hexadecimal digits.
func ValidID(id string) bool {
	if len(id) != 32 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// RandomID returns an ID that no node has.
func RandomID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// uri encodes p for a certificate.
func (p Peer) uri() *url.URL {
	host, path := hostNode, "/"+p.ID
	switch {
	case p.Notice != nil:
		host = hostBearer
		path += "/" + p.Notice.Node + "/" + strconv.FormatUint(p.Notice.Session, 10)
	case p.Incarnation != "":
		path += "/" + p.Incarnation
	}
	return &url.URL{Scheme: uriScheme, Host: host, Path: path}
}

// parseURI is the inverse of Peer.uri.
func parseURI(u *url.URL) (Peer, error) {
	name, ok := strings.CutPrefix(u.Path, "/")
	switch {
	case u.Scheme != uriScheme || !ok:
	case u.Host == hostNode:
		if id, incarnation, _ := strings.Cut(name, "/"); ValidID(id) {
			return Peer{ID: id, Incarnation: incarnation}, nil
		}
	case u.Host == hostBearer:
		parts := strings.Split(name, "/")
		if len(parts) != 3 || !ValidID(parts[0]) || !ValidID(parts[1]) {
			break
		}
		session, err := strconv.ParseUint(parts[2], 10, 64)
		if err == nil && session != 0 {
			return Peer{ID: parts[0], Notice: &Notice{Node: parts[1], Session: session}}, nil
		}
	}
	return Peer{}, errors.New("the certificate does not name a node")
}

// PeerOf returns the owner of a certificate that was verified.
func PeerOf(cert *x509.Certificate) (Peer, error) {
	if len(cert.URIs) != 1 {
		return Peer{}, errors.New("the certificate does not name one node")
	}
	return parseURI(cert.URIs[0])
}
