package peertls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Client returns the configuration for dialling addr. It verifies the peer's authority. If want is
// not empty it also verifies that the peer is that node. This happens within the handshake, so a
// node that has taken over an address never takes the connection for one to itself. It would
// otherwise close the connection that it has for this node's datagrams.
func (i *Identity) Client(addr, protocol, want string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Time:               Now,
		ServerName:         i.ServerName(),
		NextProtos:         []string{protocol},
		Certificates:       []tls.Certificate{i.leaf},
		InsecureSkipVerify: true, // there are no host names; VerifyConnection verifies the chain
		VerifyConnection: func(s tls.ConnectionState) error {
			return i.verifyServer(s.PeerCertificates[0], addr, want)
		},
	}
}

func (i *Identity) verifyServer(cert *x509.Certificate, addr, want string) error {
	err := i.verify(cert, x509.ExtKeyUsageServerAuth)
	if err != nil {
		if kid, ok := keyOf(cert); ok && kid != i.kid {
			return &WrongSecretError{Addr: addr, Want: i.kid, Have: kid}
		}
		return fmt.Errorf("the server at %s is not a node of a cluster: %w", addr, err)
	}
	if want == "" {
		return nil
	}
	peer, err := PeerOf(cert)
	if err == nil && peer.ID != want {
		err = &WrongNodeError{Addr: addr, Want: want, Got: peer.ID}
	}
	return err
}

// Identities are those of one node: one for each of its secrets, in order of preference. There is
// at least one.
type Identities []*Identity

// NewNodes makes the identities of a node.
func NewNodes(secrets []seal.Secret, id, incarnation string) (Identities, error) {
	var all Identities
	for _, s := range secrets {
		i, err := NewNode(s, id, incarnation)
		if err != nil {
			return nil, fmt.Errorf("making a certificate: %w", err)
		}
		all = append(all, i)
	}
	return all, nil
}

// Find returns the identity under the secret that kid names, or nil.
func (all Identities) Find(kid seal.KeyID) *Identity {
	for _, i := range all {
		if i.kid == kid {
			return i
		}
	}
	return nil
}

// SignerOf returns the ID of the secret behind a client's certificate, and whether it is one of
// these.
func (all Identities) SignerOf(cert *x509.Certificate) (seal.KeyID, bool) {
	for _, i := range all {
		if i.verify(cert, x509.ExtKeyUsageClientAuth) == nil {
			return i.kid, true
		}
	}
	return seal.KeyID{}, false
}

// Renew makes the identities of a node for other secrets. It keeps those that are there already.
func (all Identities) Renew(secrets []seal.Secret, id, incarnation string) (Identities, error) {
	var next Identities
	for _, s := range secrets {
		if i := all.Find(s.ID()); i != nil {
			next = append(next, i)
			continue
		}
		made, err := NewNodes([]seal.Secret{s}, id, incarnation)
		if err != nil {
			return nil, err
		}
		next = append(next, made...)
	}
	return next, nil
}

// Server returns the configuration for one inbound connection. sni receives the server name that
// the client asks for.
func (all Identities) Server(protocols []string, sni *string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   Now,
		NextProtos:             protocols,
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		// A client whose secret we do not have gets our first certificate: it reads our key ID
		// there.
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			*sni = hello.ServerName
			if kid, ok := KeyOfServerName(hello.ServerName); ok {
				if i := all.Find(kid); i != nil {
					return &i.leaf, nil
				}
			}
			return &all[0].leaf, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			var err error
			for _, i := range all {
				if err = i.verify(s.PeerCertificates[0], x509.ExtKeyUsageClientAuth); err == nil {
					return nil
				}
			}
			return fmt.Errorf("the certificate was not made with the secret of this cluster: %w", err)
		},
	}
}
