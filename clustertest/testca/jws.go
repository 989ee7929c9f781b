package testca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // of keys of P-384 and P-521
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

const (
	minRSA, maxRSA = 2048, 8192 // bits of a key
	maxExponent    = 1 << 31
)

var (
	errSignature = errors.New("the signature is wrong")
	errAlgorithm = errors.New("the algorithm is not that of the key")
)

// message is a request as ACME signs it (RFC 8555, 6.2).
type message struct {
	protected
	payload   []byte // empty in a POST-as-GET
	input     []byte // what is signed
	signature []byte
}

// protected is the header of a message.
type protected struct {
	Alg   string          `json:"alg"`
	Kid   string          `json:"kid"`
	Nonce string          `json:"nonce"`
	URL   string          `json:"url"`
	JWK   json.RawMessage `json:"jwk"`
}

// decodeMessage reads a message. Its signature is not checked.
func decodeMessage(text []byte) (*message, error) {
	var flat struct{ Protected, Payload, Signature string }
	if err := json.Unmarshal(text, &flat); err != nil {
		return nil, fmt.Errorf("the body is no flattened JWS: %w", err)
	}
	head, err := base64.RawURLEncoding.DecodeString(flat.Protected)
	if err != nil {
		return nil, fmt.Errorf("the protected header: %w", err)
	}
	m := &message{input: []byte(flat.Protected + "." + flat.Payload)}
	if err := json.Unmarshal(head, &m.protected); err != nil {
		return nil, fmt.Errorf("the protected header: %w", err)
	}
	if m.payload, err = base64.RawURLEncoding.DecodeString(flat.Payload); err != nil {
		return nil, fmt.Errorf("the payload: %w", err)
	}
	if m.signature, err = base64.RawURLEncoding.DecodeString(flat.Signature); err != nil {
		return nil, fmt.Errorf("the signature: %w", err)
	}
	if (m.Kid == "") == (len(m.JWK) == 0) {
		return nil, errors.New("the protected header must have one of kid and jwk")
	}
	return m, nil
}

// verifier is a public key.
type verifier struct {
	key   crypto.PublicKey // *ecdsa.PublicKey or *rsa.PublicKey
	thumb string           // its thumbprint (RFC 7638)
}

// decodeKey reads a key (RFC 7517).
func decodeKey(text []byte) (*verifier, error) {
	var k struct{ Kty, Crv, X, Y, N, E string }
	if err := json.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	switch k.Kty {
	case "EC":
		key, err := decodePoint(k.Crv, k.X, k.Y)
		if err != nil {
			return nil, err
		}
		return &verifier{key, thumbprint(fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, k.Crv, k.X, k.Y))}, nil
	case "RSA":
		n, err1 := base64.RawURLEncoding.DecodeString(k.N)
		e, err2 := base64.RawURLEncoding.DecodeString(k.E)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("the key: %w", err)
		}
		modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
		if bits := modulus.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, fmt.Errorf("the key has %d bits; use %d to %d", bits, minRSA, maxRSA)
		}
		if exponent.Cmp(big.NewInt(maxExponent)) >= 0 || exponent.Int64() < 3 || exponent.Bit(0) == 0 {
			return nil, errors.New("the key has a wrong exponent")
		}
		key := &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}
		return &verifier{key, thumbprint(fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, k.E, k.N))}, nil
	}
	return nil, errors.New("the key is neither EC nor RSA")
}

func decodePoint(name, x, y string) (*ecdsa.PublicKey, error) {
	curves := []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}
	i := slices.IndexFunc(curves, func(c elliptic.Curve) bool { return c.Params().Name == name })
	if i < 0 {
		return nil, errors.New("the key has an unknown curve; use P-256, P-384 or P-521")
	}
	size := coordinate(curves[i])
	xs, err1 := base64.RawURLEncoding.DecodeString(x)
	ys, err2 := base64.RawURLEncoding.DecodeString(y)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	if len(xs) != size || len(ys) != size {
		return nil, errors.New("the key has coordinates of a wrong length")
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curves[i], slices.Concat([]byte{4}, xs, ys))
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	return key, nil
}

// coordinate returns the bytes of a coordinate.
func coordinate(c elliptic.Curve) int { return (c.Params().BitSize + 7) / 8 }

func thumbprint(canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// is reports whether two keys are the same.
func (v *verifier) is(key crypto.PublicKey) bool {
	own, ok := v.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && own.Equal(key)
}

// verify returns why m is not signed by the private half of the key, nil if it is.
func (v *verifier) verify(m *message) error {
	switch key := v.key.(type) {
	case *rsa.PublicKey:
		if m.Alg != "RS256" {
			return errAlgorithm
		}
		sum := sha256.Sum256(m.input)
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], m.signature) != nil {
			return errSignature
		}
		return nil
	case *ecdsa.PublicKey:
		algs := map[string]struct {
			name string
			hash crypto.Hash
		}{"P-256": {"ES256", crypto.SHA256}, "P-384": {"ES384", crypto.SHA384}, "P-521": {"ES512", crypto.SHA512}}
		alg, size := algs[key.Params().Name], coordinate(key.Curve)
		if m.Alg != alg.name {
			return errAlgorithm
		}
		h := alg.hash.New()
		h.Write(m.input)
		if len(m.signature) != 2*size {
			return errSignature
		}
		r, s := new(big.Int).SetBytes(m.signature[:size]), new(big.Int).SetBytes(m.signature[size:])
		if !ecdsa.Verify(key, h.Sum(nil), r, s) {
			return errSignature
		}
		return nil
	}
	return errAlgorithm
}

// decode reads a payload, which must be one JSON value. An empty one leaves into as it is.
func decode(payload []byte, into any) error {
	if len(bytes.TrimSpace(payload)) == 0 {
		return nil
	}
	return json.Unmarshal(payload, into)
}
