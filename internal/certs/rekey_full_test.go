package certs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/rekey"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A storage that refuses new certificates does not have one issued after the other.
func TestRekeyStorageIsFull(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		full := fmt.Errorf("%w: the limit is reached", errs.ErrTooLarge)
		w.storage.denyAll(func(op, key string) error {
			if op == "store" && strings.HasPrefix(key, "certificates/") {
				return full
			}
			return nil
		})
		before := len(w.ca.Placed(""))
		ended := make(chan error, 1)
		go func() { ended <- w.nodes[0].Rekey(t.Context(), "17") }()
		time.Sleep(24 * time.Hour)
		// after 0, 1, 3, 7 and 15 hours
		if n := len(w.ca.Placed("")) - before; n != 5 {
			t.Errorf("%d orders in a day, want 5", n)
		}
		text := strings.Join(w.progress("17").Trouble, "\n")
		for _, part := range []string{"could not be stored", full.Error(), "make room in the storage, no other order before 2000-01-02T07:0"} {
			if !strings.Contains(text, part) {
				t.Errorf("trouble %q, want %q", text, part)
			}
		}
		w.storage.denyAll(nil)
		time.Sleep(8 * time.Hour)
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			w.check("17", "a.example")
		default:
			t.Fatalf("not done: %+v", w.progress("17"))
		}
	})
}

// A plan that the storage refuses takes no room in it. What an interrupted attempt has listed
// stays.
func TestRekeyStorageHasNoRoomForThePlan(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	for _, refused := range []string{"plan.json", "certificates/"} {
		t.Run(refused, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRekeyWorld(t)
				w.open(w.storage, "a.example", "b.example")
				time.Sleep(time.Minute)
				w.leak()
				listed := rekey.Place + "/17/certificates/earlier"
				put(t, w.storage, map[string]string{listed: `{"state":"revoked"}`})
				full := fmt.Errorf("%w: the limit is reached", errs.ErrTooLarge)
				w.storage.denyAll(func(op, key string) error {
					if op == "store" && strings.HasPrefix(key, rekey.Place+"/17/"+refused) {
						return full
					}
					return nil
				})
				ended := make(chan error, 1)
				go func() { ended <- w.nodes[0].Rekey(t.Context(), "17") }()
				time.Sleep(time.Minute)
				synctest.Wait()
				w.storage.mu.Lock()
				for key := range w.storage.data {
					if strings.HasPrefix(key, rekey.Place) && key != listed {
						t.Errorf("%s is left", key)
					}
				}
				w.storage.mu.Unlock()
				if !w.storage.has(listed) {
					t.Error("what an interrupted attempt has listed is gone")
				}
				w.storage.denyAll(nil)
				if err := <-ended; err != nil {
					t.Error(err)
				}
				w.check("17", "a.example", "b.example")
			})
		})
	}
}
