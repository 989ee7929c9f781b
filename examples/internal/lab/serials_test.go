package lab

import (
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
)

// Pebble finds the order of a certificate by the serial number that clients send.
func TestSerials(t *testing.T) {
	store := db.NewMemoryStore()
	s := &serials{store: store}
	for _, test := range []struct {
		id   string
		der  string // the serial number as clients send it
		cert bool   // it was issued
	}{
		{"low", "7d49cb715902df", true},
		{"high", "00fd49cb715902df", true},
		{"pending", "", false},
	} {
		order := &core.Order{ID: test.id}
		if test.cert {
			serial, err := hex.DecodeString(test.der)
			if err != nil {
				t.Fatal(err)
			}
			n := new(big.Int).SetBytes(serial)
			order.CertificateObject = &core.Certificate{
				ID:   hex.EncodeToString(n.Bytes()), // as Pebble has it
				Cert: &x509.Certificate{SerialNumber: n},
			}
			if err := store.AddOrderByIssuedSerial(order); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := store.AddOrder(order); err != nil {
			t.Fatal(err)
		}
		s.add("https://127.0.0.1/my-order/" + test.id)
		s.update()
		if !test.cert {
			continue
		}
		if found, err := store.GetOrderByIssuedSerial(test.der); err != nil || found.ID != test.id {
			t.Errorf("serial number %s: %v", test.der, err)
		}
	}
	if len(s.orders) != 1 || s.orders[0] != "pending" {
		t.Errorf("orders without a certificate: %v", s.orders)
	}
}
