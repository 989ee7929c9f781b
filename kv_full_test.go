package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/kv"
)

// A program that fills its room stops neither records of certificates, nor locks, nor roles. A
// deletion makes room.
func TestKVFull(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, func(_ int, cfg *flotilla.Config) { cfg.MaxRecords = 100_000 })
		n, ctx := c.Nodes[1], t.Context()
		var err error
		for i := 0; err == nil && i < 200; i++ {
			_, err = n.KV("b").Put(ctx, fmt.Sprint(i), make([]byte, 1000), kv.Options{})
		}
		if !errors.Is(err, flotilla.ErrTooLarge) || !strings.Contains(err.Error(), "raise Config.MaxRecords") {
			t.Fatalf("the room ends with %v, want ErrTooLarge", err)
		}
		full := n.KV("b").Txn(ctx, nil, []kv.Op{kv.Put("x", make([]byte, 1000), kv.Options{}), kv.Put("y", make([]byte, 1000), kv.Options{})})
		if !errors.Is(full, flotilla.ErrTooLarge) || !strings.Contains(full.Error(), "raise Config.MaxRecords") {
			t.Errorf("a transaction that has no room: %v, want ErrTooLarge", full)
		}
		if err := n.Storage().Store(ctx, "certificates/ca/a/a.crt", make([]byte, 5000)); err != nil {
			t.Errorf("a record of a certificate: %v", err)
		}
		if err := n.Storage().Store(ctx, "other", make([]byte, 5000)); err != nil {
			t.Errorf("another record: %v", err)
		}
		if err := n.Storage().Lock(ctx, "issue_cert_a"); err != nil {
			t.Errorf("a lock: %v", err)
		}
		if err := n.Hold(ctx, flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error { return nil }); err != nil {
			t.Errorf("a role: %v", err)
		}
		swap := []kv.Op{kv.Put("new", make([]byte, 1000), kv.Options{}), kv.Delete("1")}
		if err := n.KV("b").Txn(ctx, nil, swap); err != nil {
			t.Errorf("a transaction that makes room behind its put: %v", err)
		}
		if err := n.KV("b").Delete(ctx, "0"); err != nil {
			t.Fatal(err)
		}
		if _, err := n.KV("b").Put(ctx, "0", make([]byte, 1000), kv.Options{}); err != nil {
			t.Errorf("after a deletion: %v", err)
		}
		s := n.Status().Space
		i := slices.IndexFunc(s, func(s flotilla.SpaceStatus) bool { return s.Field == "MaxRecords" })
		if i < 0 || !s[i].Full() || !strings.Contains(s[i].Warning(), "raise Config.MaxRecords") {
			t.Errorf("the status says %+v", s)
		}
	})
}

// A node that was cut off does not know what has made room. It asks instead of refusing a write.
func TestFullIsNotStale(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, of := range []struct {
		name  string
		store func(ctx context.Context, n *flotilla.Node, key string) error
		clear func(ctx context.Context, n *flotilla.Node) error
	}{
		{"records", func(ctx context.Context, n *flotilla.Node, key string) error {
			return n.Storage().Store(ctx, key, make([]byte, 50_000))
		}, func(ctx context.Context, n *flotilla.Node) error {
			return n.Storage().Delete(ctx, "0")
		}},
		{"entries", func(ctx context.Context, n *flotilla.Node, key string) error {
			_, err := n.KV("b").Put(ctx, key, make([]byte, 50_000), kv.Options{})
			return err
		}, func(ctx context.Context, n *flotilla.Node) error {
			return n.KV("b").Delete(ctx, "0")
		}},
	} {
		t.Run(of.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := kvCluster(t, func(_ int, cfg *flotilla.Config) { cfg.MaxRecords, cfg.MaxState = 200_000, 200_000 })
				n, ctx := c.Nodes[1], t.Context()
				var err error
				for i := 0; err == nil; i++ {
					err = of.store(ctx, n, fmt.Sprint(i))
				}
				if !errors.Is(err, flotilla.ErrTooLarge) {
					t.Fatalf("the room ends with %v, want ErrTooLarge", err)
				}
				c.Isolate(1)
				time.Sleep(10 * time.Second)
				if err := of.clear(ctx, c.Nodes[2]); err != nil {
					t.Fatal(err)
				}
				c.Heal()
				err = of.store(ctx, n, "new")
				if errors.Is(err, flotilla.ErrLost) { // it has to learn that its session has ended
					err = of.store(ctx, n, "new")
				}
				if err != nil {
					t.Errorf("after others have made room: %v", err)
				}
			})
		})
	}
}
