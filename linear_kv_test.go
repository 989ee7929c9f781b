package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/kv"
)

// kvChaos is what is recorded of one bucket.
type kvChaos struct {
	*chaos
	bucket string
	rec    kvHistory // guarded by chaos.mu
}

// call runs f as an operation on the bucket. f fills in what came of it, and returns whether it is
// to be judged.
func (h *kvChaos) call(o kvOp, f func(o *kvOp) bool) {
	o.call, o.from = h.ticks.Add(1), h.now()
	judged := f(&o)
	o.ret, o.to = h.ticks.Add(1), h.now()
	if o.open {
		o.ret, o.to = noRet, noEnd
	}
	if judged {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.rec.ops = append(h.rec.ops, o)
	}
}

const noRet = int64(noEnd)

// phaseTime is for how long clients work on a bucket. Then they go on with another one. The longer
// a history is, the more calls it has of which nobody knows whether they took effect, and the
// search for an order takes exponential time in their number.
const phaseTime = 20 * time.Second

// client works on the bucket until ctx ends, always at the same node.
func (h *kvChaos) client(ctx context.Context, seed uint64, id, at int) {
	random := rand.New(rand.NewPCG(seed, uint64(id)))
	versions := make(map[string]uint64) // by key, as this client knows them
	for i := 0; ctx.Err() == nil; i++ {
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		n := h.nodes[at].Load()
		if n == nil {
			continue
		}
		s, key := n.KV(h.bucket), kvKeys()[random.IntN(2)]
		value := fmt.Sprintf("%s.%d.%d", h.bucket, id, i)
		limit := time.Duration(500+random.IntN(4000)) * time.Millisecond
		ctx, cancel := context.WithTimeout(h.t.Context(), limit)
		switch p := random.IntN(100); {
		case p < 20:
			h.put(ctx, s, kvOp{kind: kvPut, node: at, writes: []kvWrite{{key: key, value: value, session: random.IntN(2) == 0}}})
		case p < 28:
			h.write(kvOp{kind: kvDelete, node: at, writes: []kvWrite{{key: key}}}, func(*kvOp) error { return s.Delete(ctx, key) })
		case p < 48:
			h.update(ctx, s, key, value, at)
		case p < 65:
			h.txn(ctx, s, random, kvOp{kind: kvTxn, node: at}, value, versions)
		default:
			versions[key] = h.get(ctx, n, key, at)
		}
		late := ctx.Err() != nil
		cancel()
		if late { // perhaps nobody knows whether it took effect: not many such calls
			time.Sleep(3 * time.Second)
		}
	}
}

// write runs f as a write.
func (h *kvChaos) write(o kvOp, f func(o *kvOp) error) {
	h.call(o, func(o *kvOp) bool {
		err := f(o)
		conflict := new(kv.ConflictError)
		switch {
		case errors.As(err, &conflict):
			for n, c := range o.conds {
				if o.conflict == 0 && conflict.Cond == condOf(c) {
					o.conflict = n + 1
				}
			}
		case errors.Is(err, flotilla.ErrLost):
			o.lost = true
		case err != nil:
			o.open = true
		}
		return true
	})
}

func condOf(c kvCond) kv.Cond { return kv.IfVersion(c.key, c.version) }

func (h *kvChaos) put(ctx context.Context, s *kv.Store, o kvOp) {
	h.write(o, func(o *kvOp) error {
		w := &o.writes[0]
		e, err := s.Put(ctx, w.key, []byte(w.value), kv.Options{Session: w.session})
		w.version = e.Version
		return err
	})
}

// update replaces an entry. Its condition is what the function got last.
func (h *kvChaos) update(ctx context.Context, s *kv.Store, key, value string, at int) {
	h.write(kvOp{kind: kvUpdate, node: at, writes: []kvWrite{{key: key, value: value}}}, func(o *kvOp) error {
		e, err := s.Update(ctx, key, func(old kv.Entry) ([]byte, error) {
			o.conds = []kvCond{{key, old.Version}}
			return []byte(value), nil
		}, kv.Options{})
		o.writes[0].version = e.Version
		return err
	})
}

// txn changes one entry or both, with conditions on what the client knows.
func (h *kvChaos) txn(ctx context.Context, s *kv.Store, random *rand.Rand, o kvOp, value string, versions map[string]uint64) {
	var conds []kv.Cond
	var ops []kv.Op
	for i, key := range kvKeys() {
		if random.IntN(2) == 0 {
			o.conds = append(o.conds, kvCond{key, versions[key]})
			conds = append(conds, condOf(o.conds[len(o.conds)-1]))
		}
		switch random.IntN(4) {
		case 0:
		case 1:
			o.writes = append(o.writes, kvWrite{key: key})
			ops = append(ops, kv.Delete(key))
		default:
			v := fmt.Sprintf("%s.%d", value, i)
			o.writes = append(o.writes, kvWrite{key: key, value: v})
			ops = append(ops, kv.Put(key, []byte(v), kv.Options{}))
		}
	}
	h.write(o, func(*kvOp) error { return s.Txn(ctx, conds, ops) })
}

// get reads an entry, and returns its version.
func (h *kvChaos) get(ctx context.Context, n *flotilla.Node, key string, at int) (version uint64) {
	h.call(kvOp{kind: kvGet, node: at}, func(o *kvOp) bool {
		o.unready = !n.Status().Ready
		e, err := n.KV(h.bucket).Get(ctx, key)
		o.writes = []kvWrite{{key: key, value: string(e.Value), version: e.Version}}
		o.unready = o.unready || !n.Status().Ready
		version = e.Version
		return err == nil || errors.Is(err, fs.ErrNotExist)
	})
	return version
}

// watch watches the bucket until ctx ends, on one node after another process of it. A slow one
// sleeps before each event.
func (h *kvChaos) watch(ctx context.Context, at int, slow time.Duration) {
	for ctx.Err() == nil {
		n := h.nodes[at].Load()
		if n == nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		w := kvWatch{node: at}
		for e, err := range n.KV(h.bucket).Watch(ctx, "") {
			if err != nil {
				w.whole = ctx.Err() != nil
				break
			}
			if w.began == 0 {
				w.began = h.ticks.Add(1)
			}
			got := kvEvent{key: e.Entry.Key, value: string(e.Entry.Value), version: e.Entry.Version, expired: e.Expired}
			if len(w.events) == 0 && !e.Deleted && isFirst(w.first, got) {
				w.first = append(w.first, got)
			} else {
				w.events = append(w.events, got)
			}
			// What the watch has yielded is in the node's state.
			if now, err := n.KV(h.bucket).Get(ctx, got.key); err == nil && now.Version < got.version {
				h.t.Errorf("n%d reads version %d of %s, and its watch has yielded %d", at, now.Version, got.key, got.version)
			}
			time.Sleep(slow)
		}
		h.mu.Lock()
		h.rec.watches = append(h.rec.watches, w)
		h.mu.Unlock()
	}
}

// isFirst reports whether an event continues the present entries, which come in the order of keys.
func isFirst(first []kvEvent, e kvEvent) bool {
	return len(first) == 0 || first[len(first)-1].key < e.key
}

// end notes what is in the bucket when all is over. It is the same on all nodes.
func (h *kvChaos) end() {
	for i, n := range h.c.Nodes {
		final := make(map[string]kvEvent)
		for e, err := range n.KV(h.bucket).List(h.t.Context(), "") {
			if err != nil {
				h.t.Errorf("n%d: %v", i, err)
			}
			final[e.Key] = kvEvent{key: e.Key, value: string(e.Value), version: e.Version}
		}
		if h.rec.final == nil {
			h.rec.final = final
		} else if fmt.Sprint(final) != fmt.Sprint(h.rec.final) {
			h.t.Errorf("in the end n%d has %v, and n0 %v", i, final, h.rec.final)
		}
	}
}

// Whatever happens to nodes and network, writes of entries are linearizable, with their versions
// and conditions; reads are not older than what was acknowledged; and a watch yields every change
// in order. LINEAR_SEED=n runs one seed alone.
func TestKVLinearizableUnderFaults(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, run := range chaosRuns(t) {
		t.Run(fmt.Sprintf("%d nodes, seed %d", run.nodes, run.seed), func(t *testing.T) {
			var buckets []*kvHistory
			phases := flotilla.Cases(t, 5, 3)
			synctest.Test(t, func(t *testing.T) {
				h := newChaos(t, run.seed, run.nodes)
				ctx, stop := context.WithCancel(t.Context())
				var all []*kvChaos
				watching, end := context.WithCancel(t.Context())
				var watchers sync.WaitGroup
				defer watchers.Wait()
				for b := range 2 * run.nodes {
					var mine []*kvChaos
					for phase := range phases {
						k := &kvChaos{chaos: h, bucket: fmt.Sprintf("b%d.%d", b, phase)}
						k.rec.lossy = h.rec.lossy
						mine = append(mine, k)
						buckets = append(buckets, &k.rec)
						for i := range run.nodes {
							watchers.Go(func() { k.watch(watching, i, time.Duration(i%2)*150*time.Millisecond) })
						}
					}
					all = append(all, mine...)
					for c := range 3 {
						h.calls.Go(func() {
							for phase, k := range mine {
								ctx, cancel := context.WithTimeout(ctx, time.Duration(phase+1)*phaseTime-h.now())
								k.client(ctx, run.seed, 100*phase+3*b+c, (b+c)%run.nodes)
								cancel()
							}
						})
					}
				}
				h.run(time.Duration(phases) * phaseTime)
				stop()
				h.settle()
				time.Sleep(time.Minute) // for the slow ones
				for _, k := range all {
					k.end()
				}
				end()
			})
			count := make(map[string]int)
			for b, rec := range buckets {
				for _, o := range rec.ops {
					count[string(o.kind)]++
					if o.conflict != 0 {
						count["conflict"]++
					}
					if o.open {
						count["open"]++
					}
				}
				for _, w := range rec.watches {
					count["event"] += len(w.events)
					for _, e := range w.events {
						if e.expired {
							count["expired"]++
						}
					}
				}
				// Not in the bubble: a search has a limit in real time.
				if faults := rec.judge(); len(faults) > 0 {
					t.Errorf("bucket %d.%d:\n%s", b/phases, b%phases, strings.Join(faults, "\n"))
				}
			}
			t.Logf("%v", count)
			if count["update"] < 100 || count["txn"] < 100 || count["conflict"] < 20 || count["event"] < 500 {
				t.Errorf("too little happened: %v", count)
			}
		})
	}
}
