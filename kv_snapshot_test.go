package flotilla

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/kv"
)

// A watch goes on when its node was cut off for so long that it gets a snapshot instead of the
// entries that it has missed. It yields the newest change of each entry, deletions too.
func TestKVWatchOverASnapshot(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		logs := new(logText)
		net := simnet.New()
		nodes := trio(t, net, func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		_, others := leaderOf(t, nodes)
		writer, cut := others[0], others[1]
		put := func(key, value string) {
			t.Helper()
			_, err := writer.KV("b").Put(t.Context(), key, []byte(value), kv.Options{})
			mustDo(t, err)
		}
		put("gone", "1")
		put("kept", "1")
		put("changed", "1")

		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		var events []string
		var last uint64
		var ended sync.WaitGroup
		ended.Go(func() {
			for e, err := range cut.KV("b").Watch(ctx, "") {
				if err != nil {
					return
				}
				mu.Lock()
				if len(events) >= 3 && e.Entry.Version <= last {
					t.Errorf("version %d comes behind %d", e.Entry.Version, last)
				}
				last = max(last, e.Entry.Version)
				events = append(events, fmt.Sprintf("%s=%.3s", e.Entry.Key, e.Entry.Value))
				mu.Unlock()
			}
		})
		take := func() string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return strings.Join(events, " ")
		}
		const first = "changed=1 gone=1 kept=1"
		if got := take(); got != first {
			t.Fatalf("at first it yields %q", got)
		}

		net.Isolate(cut.self.Name)
		time.Sleep(5 * time.Second)
		large := bytes.Repeat([]byte("large"), 200_000)
		for i := range 70 {
			mustDo(t, writer.Storage().Store(t.Context(), "large", large))
			if i == 20 { // what was sent before waits in the network, and arrives
				mustDo(t, writer.KV("b").Delete(t.Context(), "gone"))
				put("changed", "skipped")
				put("changed", "2")
			}
		}
		for _, n := range nodes {
			if n != cut {
				mustDo(t, n.replica.Snapshots.Take(t.Context()))
			}
		}
		put("changed", "3") // it is not in the snapshot
		put("new", "4")
		if got := take(); got != first {
			t.Fatalf("cut off it yields %q", got)
		}
		net.Heal()
		eventually(t, time.Minute, "the node has caught up", func() bool { return cut.Status().Ready && cut.Status().Index >= writer.Status().Index })
		if !logs.has("Installed remote snapshot") {
			t.Error("it has got no snapshot")
		}
		if got, want := take(), first+" gone= changed=2 changed=3 new=4"; got != want {
			t.Errorf("in the end it has yielded %q, want %q", got, want)
		}
		stop()
		ended.Wait()
	})
}
