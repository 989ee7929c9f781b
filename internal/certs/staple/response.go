package staple

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// ask asks the responder for x.
func (s *Stapler) ask(ctx context.Context, x *stapled, issuer *x509.Certificate) (*ocsp.Response, error) {
	question, err := ocsp.CreateRequest(x.Leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.url, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", x.url, res.Status)
	}
	raw, err := io.ReadAll(http.MaxBytesReader(nil, res.Body, maxBytes))
	if err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", x.url, err)
	}
	return read(raw, x.Leaf, issuer, time.Now())
}

// read returns the answer in raw if clients will accept it. Its NextUpdate is when they no longer
// do.
func read(raw []byte, leaf, issuer *x509.Certificate, now time.Time) (*ocsp.Response, error) {
	r, err := ocsp.ParseResponseForCert(raw, leaf, issuer)
	if err != nil {
		return nil, err
	}
	if by := r.Certificate; by != nil && !by.Equal(issuer) {
		// Without this check every owner of a certificate of the authority could sign answers (RFC
		// 6960, 4.2.2.2).
		if !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return nil, errors.New("the answer is signed by one who may not")
		}
		if by.NotAfter.Before(r.NextUpdate) {
			r.NextUpdate = by.NotAfter
		}
	}
	switch {
	case r.Status == ocsp.Unknown:
		return nil, errors.New("the responder does not know the certificate")
	case now.Before(r.ThisUpdate) || !now.Before(r.NextUpdate):
		return nil, fmt.Errorf("the answer is valid from %v to %v", r.ThisUpdate, r.NextUpdate)
	case r.NextUpdate.After(leaf.NotAfter.Add(time.Second)):
		return nil, errors.New("the answer outlives the certificate") // some clients refuse such an answer
	}
	return r, nil
}
