package flotilla_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

var rotations = newScheduled("rotations", "rotation", 1, 6)

// rotationTime is how long a replacement may take once all nodes can do their part.
const rotationTime = 60 * time.Second

// The secret and the data key of a cluster are replaced again and again, while nodes are killed,
// cut off and added. Nothing that was acknowledged is lost, no node stops, and at the end no disk
// has anything that a former secret or data key opens.
func TestRotationSchedules(t *testing.T) {
	runSchedules(t, rotations, 5, func(t *testing.T, random *rand.Rand) { newRotationSchedule(t, 3, random).run() })
}

// rotationSchedule is one schedule.
type rotationSchedule struct {
	*rotating
	random *rand.Rand
	has    [][]flotilla.Secret // what each node is given
	former []seal.KeyID        // secrets and data keys that were replaced

	turn  chan struct{} // holds a token while nodes are killed, started, added or looked at
	down  int           // the node that is killed or cut off; -1: none
	out   int           // the node that is evicted, which is left alone; -1: none
	acked map[string]bool
}

// newRotationSchedule returns a schedule for a settled cluster.
func newRotationSchedule(t *testing.T, nodes int, random *rand.Rand) *rotationSchedule {
	s := &rotationSchedule{
		rotating: newRotating(t, nodes), random: random, turn: make(chan struct{}, 1), down: -1, out: -1, acked: make(map[string]bool),
	}
	s.Settle()
	for range s.Nodes {
		s.has = append(s.has, []flotilla.Secret{s.old})
	}
	return s
}

// stay returns all nodes but the one that is evicted.
func (s *rotationSchedule) stay() []int {
	var all []int
	for i := range s.Nodes {
		if i != s.out {
			all = append(all, i)
		}
	}
	return all
}

// beside writes and disturbs until the caller calls stop.
func (s *rotationSchedule) beside() (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var busy sync.WaitGroup
	busy.Go(func() { s.write(ctx) })
	random := rand.New(rand.NewPCG(s.random.Uint64(), 0))
	busy.Go(func() { s.disturb(ctx, random) })
	return func() {
		cancel()
		busy.Wait()
	}
}

// lock takes the token, which unlock gives back. A mutex would keep the bubble's time from going
// on.
func (s *rotationSchedule) lock()   { s.turn <- struct{}{} }
func (s *rotationSchedule) unlock() { <-s.turn }

func (s *rotationSchedule) chance(percent int) bool { return s.random.IntN(100) < percent }

// pause lets up to d go by.
func (s *rotationSchedule) pause(d time.Duration) {
	time.Sleep(time.Duration(s.random.Int64N(int64(d))))
}

func (s *rotationSchedule) run() {
	stop := s.beside()
	for range 2 + s.random.IntN(2) {
		s.replaceSecret()
		if s.chance(60) {
			s.replaceData()
		}
	}
	stop()
	s.recover()
	s.replaceData()
	s.check()
}

// replaceSecret replaces the secret once. Nodes get the new one one after another.
func (s *rotationSchedule) replaceSecret() {
	before, next := s.old, flotilla.NewSecret()
	both := []flotilla.Secret{before, next}
	for _, i := range s.random.Perm(len(s.Nodes)) {
		s.giveNode(i, both...)
		s.pause(2 * time.Second)
	}
	client, q := s.client(both...), rotateSecret(s.t, both...)
	until := time.Now().Add(time.Duration(s.random.Int64N(int64(5 * time.Second))))
	s.step(client, q, until) // interrupted, and done again
	if s.chance(40) && len(s.Nodes) < 5 {
		s.join(both...)
	}
	s.finish(q, both...)
	s.old = next
	s.former = append(s.former, raw(s.t, before)[0].ID())
	for _, i := range s.random.Perm(len(s.Nodes)) {
		s.giveNode(i, next)
	}
	if s.chance(40) && len(s.Nodes) < 5 {
		s.join(next)
	}
}

func (s *rotationSchedule) replaceData() {
	s.lock()
	former := flotilla.DataKey(s.Nodes[s.Live()[0]])
	s.unlock()
	s.former = append(s.former, former)
	s.step(s.client(s.old), remote.RotateRequest{What: remote.RotateData}, time.Now().Add(3*time.Second))
	s.finish(remote.RotateRequest{What: remote.RotateData})
}

// giveNode gives a node secrets, now and whenever it starts.
func (s *rotationSchedule) giveNode(i int, secrets ...flotilla.Secret) {
	s.lock()
	defer s.unlock()
	s.has[i] = secrets
	s.give(i, secrets...)
}

// join adds a node, which must be ready soon.
func (s *rotationSchedule) join(secrets ...flotilla.Secret) {
	s.lock()
	defer s.unlock()
	i := len(s.Nodes)
	s.has = append(s.has, secrets)
	s.give(i, secrets...)
	s.Add(s.configure)
}

// step asks for steps until the given time, or the end. It returns the last answer, and why there
// is none.
func (s *rotationSchedule) step(c *remote.Client, q remote.RotateRequest, until time.Time) (p remote.RotateReply, err error) {
	for time.Now().Before(until) {
		if p, err = c.Rotate(s.t.Context(), q); err == nil {
			if p.Refused {
				s.t.Fatalf("refused: %s", p.Doing)
			}
			if q.Begun = p.Begun; p.Done {
				return p, nil
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	return p, err
}

// finish asks for steps until the end.
func (s *rotationSchedule) finish(q remote.RotateRequest, secrets ...flotilla.Secret) {
	s.t.Helper()
	if len(secrets) == 0 {
		secrets = []flotilla.Secret{s.old}
	}
	c := s.client(secrets...)
	defer c.Close()
	if p, err := s.step(c, q, time.Now().Add(rotationTime)); err != nil || !p.Done {
		s.t.Fatalf("replacing %s: step %d of %d (%s) waits for %s: %v", q.What, p.Step, p.Steps, p.Doing, strings.Join(p.Waiting, "; "), err)
	}
}

// disturb kills, cuts off and revives nodes, one at a time.
func (s *rotationSchedule) disturb(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(random.Int64N(int64(4 * time.Second))))
		s.lock()
		stay := s.stay()
		switch i := stay[random.IntN(len(stay))]; {
		case s.down >= 0:
			s.up()
		case random.IntN(2) == 0:
			s.Kill(i)
			s.down = i
		default:
			s.Isolate(i)
			s.down = i
		}
		s.unlock()
	}
}

// up brings the node that is down back. The caller has the token.
func (s *rotationSchedule) up() {
	s.Heal()
	if !slices.Contains(s.Live(), s.down) {
		s.Restart(s.down)
	}
	s.down = -1
}

func (s *rotationSchedule) recover() {
	s.lock()
	defer s.unlock()
	if s.down >= 0 {
		s.up()
	}
	s.SettleNodes(s.stay()...)
}

// write stores records, and remembers those that were acknowledged.
func (s *rotationSchedule) write(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		s.lock()
		live := slices.DeleteFunc(s.Live(), func(i int) bool { return i == s.out })
		n := s.Nodes[live[i%len(live)]]
		s.unlock()
		key := fmt.Sprint("k/", i)
		wctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		if n.Storage().Store(wctx, key, []byte("1")) == nil {
			s.acked[key] = true
		}
		cancel()
		time.Sleep(100 * time.Millisecond)
	}
}

// check restarts every node, with the last secret alone, and looks at what they have.
func (s *rotationSchedule) check() {
	for _, id := range s.former {
		s.wantGone(id, s.stay()...)
	}
	if now := flotilla.DataKey(s.Nodes[0]); slices.Contains(s.former, now) {
		s.t.Errorf("the data key %v was not replaced", now)
	}
	for _, i := range s.stay() {
		if e := s.Nodes[i].Status().Err; e != "" {
			s.t.Errorf("n%d has stopped: %s", i, e)
		}
		s.Kill(i)
		s.Restart(i)
		s.SettleNodes(s.stay()...)
	}
	for _, i := range s.stay() {
		for key := range s.acked {
			if v, err := s.Nodes[i].Storage().Load(s.t.Context(), key); err != nil || string(v) != "1" {
				s.t.Errorf("n%d has %q in %s: %v", i, v, key, err)
			}
		}
	}
	if len(s.acked) < 10 {
		s.t.Errorf("only %d writes succeeded", len(s.acked))
	}
}
