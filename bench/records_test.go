package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/flotilla-ha/flotilla/kv"
)

// call is a row of the table of BenchmarkRecords: a call of package kv, and what does the same with
// etcd's client.
type call struct {
	name           string
	ours, theirs   *side // theirs is nil if there is nothing alike
	oursN, theirsN int   // calls in a round
}

// BenchmarkRecords compares calls of package kv on a follower with Storage.Store on the same node,
// and with etcd's client, which is connected to a follower. There is one caller. The rounds
// alternate. It prints a table: medians over the rounds, and the median of the quotients within one
// round. The figures of the calls with etcd's client contain the way through a socket to a member,
// because its users pay it too.
//
// The watchers are on the nodes that do not write. An event that comes before the write returns has
// a negative time after that.
func BenchmarkRecords(b *testing.B) {
	const writes, gets = 200, 2000
	first, followers := newEtcdClients(b)
	etcd := followers[0]
	c := newCluster(b)
	n := c.follower(b)
	s := n.KV("bench")
	both := func(name string, n int, ours, theirs store) *call {
		return &call{name, &side{name: name, put: ours}, &side{name: "etcd: " + name, put: theirs}, n, n}
	}
	storing := &call{name: "Storage.Store", ours: &side{name: "Store", put: writer(n)}, oursN: writes}
	putting := both("Put", writes, kvPut(s), etcdPut(etcd))
	updating := both("Update; etcd: Get, then Txn", writes, kvUpdate(s), etcdUpdate(etcd))
	getting := both("Get; etcd: Get", gets, kvGet(s), etcdGet(etcd))
	calls := []*call{
		storing, putting, updating,
		both("Txn that compares and swaps", writes, kvSwap(s), etcdSwap(etcd)),
		both("Txn of two conditions and four Puts", writes, kvTxn(s), etcdTxn(etcd)),
		getting,
		both("Get; etcd: Get, WithSerializable", gets, kvGet(s), etcdGet(etcd, clientv3.WithSerializable())),
	}
	getting.oursN *= 10
	ours := newWatched("flotilla", kvVersioned(s))
	theirs := newWatched("etcd", etcdVersioned(etcd))
	for _, other := range c.nodes {
		if other != n {
			ours.watchKV(b, other)
		}
	}
	for _, other := range []*clientv3.Client{first, followers[1]} {
		theirs.watchEtcd(b, other)
	}
	for _, s := range []*side{putting.ours, putting.theirs} {
		(&side{name: s.name, put: s.put}).round(b, 1, writes) // fills connections and caches
	}
	b.ResetTimer()
	for range *rounds {
		for _, c := range calls {
			c.ours.round(b, 1, c.oursN)
			if c.theirs != nil {
				c.theirs.round(b, 1, c.theirsN)
			}
		}
		ours.round(b, writes)
		theirs.round(b, writes)
	}
	calls = append(calls, &call{name: "event on another node, after the call of Put", ours: ours.begun, theirs: theirs.begun})
	fmt.Print(table(calls), row("event on another node, after the return of Put", ours.returned, theirs.returned, "–"))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios(putting.ours.p50, storing.ours.p50)), "put/store")
	b.ReportMetric(median(ratios(updating.ours.p50, storing.ours.p50)), "update/store")
	b.ReportMetric(ms(median(putting.ours.p50)), "put-p50-ms")
	b.ReportMetric(1000*ms(median(getting.ours.p50)), "get-p50-µs")
	b.ReportMetric(ms(median(ours.returned.p99)), "watch-p99-ms")
}

// table returns the lines of a table in Markdown.
func table(calls []*call) string {
	text := "| one caller, p50 / p99 in ms | flotilla | etcd | p50, flotilla / etcd |\n|---|---|---|---|\n"
	for _, c := range calls {
		quotient := "–"
		if c.theirs != nil {
			quotient = fmt.Sprintf("%.2g", median(ratios(c.ours.p50, c.theirs.p50)))
		}
		text += row(c.name, c.ours, c.theirs, quotient)
	}
	return text
}

func row(name string, ours, theirs *side, quotient string) string {
	cell := func(s *side) string {
		if s == nil {
			return "–"
		}
		return fmt.Sprintf("%.3f / %.3f", ms(median(s.p50)), ms(median(s.p99)))
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n", name, cell(ours), cell(theirs), quotient)
}

// BenchmarkRecordsContended has thirty callers, on all nodes, increment one number at the same
// time. It counts the entries of the log that this takes. The same with etcd's software
// transactional memory, through a client for each member, counts transactions. The rounds
// alternate.
func BenchmarkRecordsContended(b *testing.B) {
	const callers = 30
	first, followers := newEtcdClients(b)
	clients := append(followers, first)
	c := newCluster(b)
	var entries, tries []float64
	var ours, theirs []time.Duration
	for round := range *rounds {
		key := fmt.Sprint("count/", round)
		before := c.index()
		ours = append(ours, together(b, callers, func(i int) error {
			_, err := c.nodes[i%3].KV("bench").Update(b.Context(), key, func(old kv.Entry) ([]byte, error) {
				return increment(string(old.Value))
			}, kv.Options{})
			return err
		}))
		entries = append(entries, float64(c.index()-before))
		if e, err := c.nodes[0].KV("bench").Get(b.Context(), key); err != nil || string(e.Value) != strconv.Itoa(callers) {
			b.Fatalf("the number is %q, want %d: %v", e.Value, callers, err)
		}
		var tried atomic.Int64
		theirs = append(theirs, together(b, callers, func(i int) error {
			_, err := concurrency.NewSTM(clients[i%3], func(stm concurrency.STM) error {
				tried.Add(1)
				next, err := increment(stm.Get(key))
				stm.Put(key, string(next))
				return err
			}, concurrency.WithAbortContext(b.Context()))
			return err
		}))
		tries = append(tries, float64(tried.Load()))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(entries), "entries")
	b.ReportMetric(slices.Max(entries), "max-entries")
	b.ReportMetric(ms(median(ours)), "all-ms")
	b.ReportMetric(median(tries), "etcd-txns")
	b.ReportMetric(ms(median(theirs)), "etcd-all-ms")
}

// index returns the index of the newest entry of the log that any node has applied.
func (c *cluster) index() (index uint64) {
	for _, n := range c.nodes {
		index = max(index, n.Status().Index)
	}
	return index
}

// together calls f n times at once, and returns the time until all have returned.
func together(b *testing.B, n int, f func(i int) error) time.Duration {
	b.Helper()
	var all sync.WaitGroup
	began := time.Now()
	for i := range n {
		all.Go(func() {
			if err := f(i); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

// increment returns the decimal number after that of text. Nothing stands for 0.
func increment(text string) ([]byte, error) {
	if text == "" {
		text = "0"
	}
	n, err := strconv.Atoi(text)
	return strconv.AppendInt(nil, int64(n+1), 10), err
}

// The calls of package kv, and those of etcd's client.

func kvPut(s *kv.Store) store {
	return func(ctx context.Context, key string, value []byte) error {
		_, err := s.Put(ctx, key, value, kv.Options{})
		return err
	}
}

func etcdPut(c *clientv3.Client) store {
	return func(ctx context.Context, key string, value []byte) error {
		_, err := c.Put(ctx, key, string(value))
		return err
	}
}

// kvUpdate reads a value and writes another one.
func kvUpdate(s *kv.Store) store {
	return func(ctx context.Context, key string, value []byte) error {
		_, err := s.Update(ctx, key, func(kv.Entry) ([]byte, error) { return value, nil }, kv.Options{})
		return err
	}
}

func etcdUpdate(c *clientv3.Client) store {
	return func(ctx context.Context, key string, value []byte) error {
		got, err := c.Get(ctx, key)
		if err != nil {
			return err
		}
		var revision int64
		if len(got.Kvs) > 0 {
			revision = got.Kvs[0].ModRevision
		}
		_, err = etcdSwapAt(ctx, c, key, value, revision)
		return err
	}
}

// kvSwap writes a value if the version is the one that the caller knows.
func kvSwap(s *kv.Store) store {
	return func(ctx context.Context, key string, value []byte) error {
		old, err := s.Get(ctx, key) // from memory
		if err != nil {
			return err
		}
		return s.Txn(ctx, []kv.Cond{kv.IfVersion(key, old.Version)}, []kv.Op{kv.Put(key, value, kv.Options{})})
	}
}

// etcdSwap knows the revisions of its own keys.
func etcdSwap(c *clientv3.Client) store {
	revisions := make(map[string]int64)
	return func(ctx context.Context, key string, value []byte) (err error) {
		revisions[key], err = etcdSwapAt(ctx, c, "swap/"+key, value, revisions[key])
		return err
	}
}

// etcdSwapAt writes a value if the revision is the one that is given. 0 stands for no value. It
// returns the new revision.
func etcdSwapAt(ctx context.Context, c *clientv3.Client, key string, value []byte, revision int64) (int64, error) {
	done, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).Then(clientv3.OpPut(key, string(value))).Commit()
	if err != nil {
		return 0, err
	}
	return done.Header.Revision, changed(done)
}

// changed returns an error if the conditions of a transaction were not true.
func changed(done *clientv3.TxnResponse) error {
	if !done.Succeeded {
		return errors.New("nobody else writes, and yet the conditions are not true")
	}
	return nil
}

// kvTxn writes the value in four parts.
func kvTxn(s *kv.Store) store {
	return func(ctx context.Context, key string, value []byte) error {
		var ops []kv.Op
		for i, part := range quarters(value) {
			ops = append(ops, kv.Put(fmt.Sprint(key, "/", i), part, kv.Options{}))
		}
		return s.Txn(ctx, []kv.Cond{kv.IfExists(key), kv.IfAbsent(key + "/absent")}, ops)
	}
}

func etcdTxn(c *clientv3.Client) store {
	return func(ctx context.Context, key string, value []byte) error {
		var ops []clientv3.Op
		for i, part := range quarters(value) {
			ops = append(ops, clientv3.OpPut(fmt.Sprint(key, "/", i), string(part)))
		}
		done, err := c.Txn(ctx).If(
			clientv3.Compare(clientv3.CreateRevision(key), ">", 0),
			clientv3.Compare(clientv3.CreateRevision(key+"/absent"), "=", 0),
		).Then(ops...).Commit()
		if err != nil {
			return err
		}
		return changed(done)
	}
}

func quarters(value []byte) [][]byte {
	n := len(value) / 4
	return [][]byte{value[:n], value[n : 2*n], value[2*n : 3*n], value[3*n:]}
}

func kvGet(s *kv.Store) store {
	return func(ctx context.Context, key string, _ []byte) error {
		_, err := s.Get(ctx, key)
		return err
	}
}

func etcdGet(c *clientv3.Client, opts ...clientv3.OpOption) store {
	return func(ctx context.Context, key string, _ []byte) error {
		got, err := c.Get(ctx, key, opts...)
		if err == nil && len(got.Kvs) == 0 {
			err = fmt.Errorf("etcd has no key %s", key)
		}
		return err
	}
}
