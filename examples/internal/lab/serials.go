package lab

import (
	"path"
	"slices"
	"sync"

	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
)

// serials lets Pebble find the orders of certificates that clients replace. A client names such a
// certificate by the DER form of its serial number (RFC 9773, section 4.1), which begins with 00 if
// the first byte is above 7f. Pebble v2.10.1 knows it without the 00, and refuses the order. That
// concerns one of 256 certificates.
type serials struct {
	store *db.MemoryStore

	mu     sync.Mutex
	orders []string // IDs of orders that had no certificate yet
}

// add adds the order at a URL.
func (s *serials) add(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, path.Base(url))
}

// update gives Pebble the other form of the serial numbers of certificates since the last call.
func (s *serials) update() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = slices.DeleteFunc(s.orders, func(id string) bool {
		order := s.store.GetOrderByID(id)
		if order == nil {
			return true
		}
		order.RLock()
		defer order.RUnlock()
		cert := order.CertificateObject
		if cert == nil {
			return false
		}
		if cert.Cert.SerialNumber.Bytes()[0] > 0x7f {
			s.store.AddOrderByIssuedSerial(&core.Order{
				Order: order.Order, ID: order.ID, AccountID: order.AccountID,
				CertificateObject: &core.Certificate{ID: "00" + cert.ID},
			})
		}
		return true
	})
}
