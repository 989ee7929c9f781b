package testca

import (
	"crypto/x509"
	"time"
)

// Order is an order that was placed.
type Order struct {
	At          time.Time         // when it came, by the clock of the test
	Names       []string          // as they were ordered
	Account     string            // the URL of the account
	Replaces    string            // the identifier of a certificate (RFC 9773, 4.1); empty: none
	Refused     bool              // it was not accepted
	Certificate *x509.Certificate // nil: none was signed
}

// Validation is an attempt of the authority to validate a challenge.
type Validation struct {
	At        time.Time // when it ended, by the clock of the test
	Name      string    // with "*." in front if the order has it
	Challenge string    // such as HTTP01
	Err       error     // nil: it was valid
}

// Revocation is what an authority knows of a certificate that it has revoked.
type Revocation struct {
	Reason int  // of RFC 5280
	ByKey  bool // the request was signed by the certificate's own key
}
