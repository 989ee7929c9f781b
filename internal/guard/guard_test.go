package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

func addr(index int, prefix string) Addr {
	return Addr{Index: index, Prefix: netip.MustParsePrefix(prefix)}
}

func comparable(a, b message) string {
	return cmp.Diff(a, b, cmp.AllowUnexported(message{}), cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty())
}

func TestMessages(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, m := range []message{
		{kind: kindWatch, seq: 7, addrs: []Addr{addr(1, "192.0.2.1/32"), addr(1<<31-1, "2001:db8::1/64")}},
		{kind: kindWatch},
		{kind: kindTable, seq: 1<<32 - 1, text: "flotilla"},
		{kind: kindTable},
		{kind: kindNotice, notices: [][]byte{[]byte(strings.Repeat("n", MaxNotices-noticeHeader))}},
		{kind: kindNotice, notices: [][]byte{[]byte("one"), {}, []byte("another")}}, {kind: kindNotice},
		{kind: kindAsk}, {kind: kindBye}, {kind: kindHello, text: "no permission"}, {kind: kindAck, seq: 3}, {kind: kindRemoved},
	} {
		t.Run(fmt.Sprint(m.kind), func(t *testing.T) {
			b := m.marshal()
			if len(b) > maxMessage {
				t.Errorf("%d bytes, %d are possible", len(b), maxMessage)
			}
			got, err := parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := comparable(m, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The largest list fits into a message.
func TestLargestList(t *testing.T) {
	m := message{kind: kindWatch}
	for range MaxAddrs {
		m.addrs = append(m.addrs, addr(1, "2001:db8::1/128"))
	}
	if err := m.check(); err != nil {
		t.Error(err)
	}
	if n := len(m.marshal()); n > maxMessage {
		t.Errorf("%d bytes, %d are possible", n, maxMessage)
	}
}

func TestRefusedMessages(t *testing.T) {
	long := make([]Addr, MaxAddrs+1)
	for i := range long {
		long[i] = addr(1, "192.0.2.1/32")
	}
	for name, test := range map[string]struct {
		bytes []byte
		want  string
	}{
		"empty":           {nil, errShort.Error()},
		"no header":       {[]byte{version, byte(kindAck), 0, 0, 0}, errShort.Error()},
		"other version":   {[]byte{version + 1, byte(kindAck), 0, 0, 0, 0}, errVersion.Error()},
		"unknown":         {[]byte{version, 9, 0, 0, 0, 0}, "message 9 is not known"},
		"too long":        {append(message{kind: kindBye}.marshal(), 0), "1 bytes too many"},
		"cut address":     {message{kind: kindWatch, addrs: []Addr{addr(1, "192.0.2.1/32")}}.marshal()[:12], errShort.Error()},
		"address of 5":    {append(message{kind: kindWatch}.marshal(), 0, 0, 0, 1, 5, 32, 1, 2, 3, 4, 5), "an address of 5 bytes"},
		"length 33":       {append(message{kind: kindWatch}.marshal(), 0, 0, 0, 1, 4, 33, 1, 2, 3, 4), "an address is not valid"},
		"interface 0":     {append(message{kind: kindWatch}.marshal(), 0, 0, 0, 0, 4, 32, 1, 2, 3, 4), "there is no interface 0"},
		"IPv4 in IPv6":    {message{kind: kindWatch, addrs: []Addr{addr(1, "::ffff:192.0.2.1/128")}}.marshal(), "IPv4 within IPv6"},
		"addresses":       {message{kind: kindWatch, addrs: long}.marshal(), "1025 addresses"},
		"death notice":    {message{kind: kindNotice, notices: [][]byte{nil, make([]byte, MaxNotices-2*noticeHeader+1)}}.marshal(), "death notices of 65537 bytes"},
		"cut notice":      {message{kind: kindNotice, notices: [][]byte{[]byte("n")}}.marshal()[:headerSize+noticeHeader], errShort.Error()},
		"cut length":      {append(message{kind: kindNotice}.marshal(), 0, 0, 0), errShort.Error()},
		"long notice":     {append(message{kind: kindNotice}.marshal(), 0xff, 0xff, 0xff, 0xff, 1), errShort.Error()},
		"name of a table": {message{kind: kindTable, text: strings.Repeat("t", maxTable+1)}.marshal(), "the name of a table has 256 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := parse(test.bytes); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("parsed as %v, %v; want %q", m, err, test.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message{kind: kindWatch, seq: 1, addrs: []Addr{addr(3, "192.0.2.1/32"), addr(4, "2001:db8::1/128")}}.marshal())
	f.Add(message{kind: kindTable, text: "flotilla"}.marshal())
	f.Add(message{kind: kindNotice, notices: [][]byte{[]byte("notice"), {}, []byte("another")}}.marshal())
	f.Add(message{kind: kindBye}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		if diff := cmp.Diff(b, m.marshal()); diff != "" {
			t.Error(diff)
		}
	})
}

// recorder has Hooks that record their calls, and when they came.
type recorder struct {
	start  time.Time
	remove func() error
	send   func(context.Context) error

	mu  sync.Mutex
	did []string
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.did = append(r.did, fmt.Sprintf("%v ", time.Since(r.start))+fmt.Sprintf(format, args...))
}

func (r *recorder) hooks() Hooks {
	return Hooks{
		Remove:      func(addrs []Addr) error { r.note("remove %d", len(addrs)); return r.remove() },
		RemoveTable: func(name string) error { r.note("table %s", name); return errors.New("no nftables") },
		SendNotice:  func(ctx context.Context, notice []byte) error { r.note("notice %s", notice); return r.send(ctx) },
	}
}

func TestCleanUp(t *testing.T) {
	all := guardedSet{addrs: []Addr{addr(1, "192.0.2.1/32")}, table: "t", notices: [][]byte{[]byte("n")}}
	fails := func(n int) func() error {
		return func() error {
			if n--; n >= 0 {
				return errors.New("no buffer space available")
			}
			return nil
		}
	}
	for _, c := range []struct {
		name   string
		set    guardedSet
		remove func() error
		send   func(context.Context) error
		gone   bool
		first  []string // what is done first
		total  time.Duration
	}{
		{"addresses, then the death notice, then the table", all, fails(0), func(context.Context) error { return nil }, true,
			[]string{"0s remove 1", "0s notice n", "0s table t"}, 0},
		{"nothing to do", guardedSet{}, fails(0), func(context.Context) error { return nil }, true, nil, 0},
		{"the kernel is busy", all, fails(2), func(context.Context) error { return nil }, true,
			[]string{"0s remove 1", "1ms remove 1", "3ms remove 1", "3ms notice n", "3ms table t"}, 3 * time.Millisecond},
		{"no death notice while the addresses are there", all, fails(1 << 20), func(context.Context) error { return nil }, false,
			[]string{"0s remove 1", "1ms remove 1"}, finalTime},
		{"no node accepts the death notice", all, fails(0), func(context.Context) error { return errors.New("refused") }, true,
			[]string{"0s remove 1", "0s notice n", "50ms notice n", "150ms notice n"}, finalTime},
		{"the death notice hangs", all, fails(0), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, true,
			[]string{"0s remove 1", "0s notice n", "3.05s notice n", "6.15s notice n", "9.35s notice n", "10s table t"}, finalTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{start: time.Now(), remove: c.remove, send: c.send}
				gone := r.hooks().cleanUp(c.set, t.Logf)
				if gone != c.gone {
					t.Errorf("addresses gone: %v, want %v", gone, c.gone)
				}
				if diff := cmp.Diff(c.first, r.did[:min(len(r.did), len(c.first))]); diff != "" {
					t.Error(diff)
				}
				if !gone && strings.Contains(strings.Join(r.did, " "), "notice") {
					t.Error("the death notice was sent")
				}
				if took := time.Since(r.start); took != c.total {
					t.Errorf("it took %v, want %v", took, c.total)
				}
			})
		})
	}
}

// Nobody takes one of two death notices. The other is sent at once all the same.
func TestNoticesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(map[string]time.Duration)
		var mu sync.Mutex
		start := time.Now()
		h := Hooks{SendNotice: func(ctx context.Context, notice []byte) error {
			if string(notice) == "in vain" {
				<-ctx.Done()
				return ctx.Err()
			}
			mu.Lock()
			defer mu.Unlock()
			sent[string(notice)] = time.Since(start)
			return nil
		}}
		h.cleanUp(guardedSet{notices: [][]byte{[]byte("in vain"), []byte("heard")}}, t.Logf)
		if diff := cmp.Diff(map[string]time.Duration{"heard": 0}, sent); diff != "" {
			t.Error(diff)
		}
	})
}
