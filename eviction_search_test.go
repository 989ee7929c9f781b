package flotilla_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

var evictions = newScheduled("evictions", "eviction", 1, 6)

// A node is evicted while others are killed and cut off, and the operator is interrupted again and
// again. The eviction ends, nothing that was acknowledged is lost, and nothing is left on any disk
// that the node could open.
func TestEvictionSchedules(t *testing.T) {
	runSchedules(t, evictions, 6, func(t *testing.T, random *rand.Rand) { newRotationSchedule(t, 4, random).evict(3) })
}

// evict evicts a node.
func (s *rotationSchedule) evict(out int) {
	s.out = out
	id := s.Nodes[out].Status().ID
	s.former = append(s.former, raw(s.t, s.old)[0].ID(), flotilla.DataKey(s.Nodes[0]))
	if s.chance(30) {
		s.Kill(out)
	}
	stop := s.beside()
	next := flotilla.NewSecret()
	q := remote.EvictRequest{Node: id}
	for _, one := range raw(s.t, s.old, next) {
		q.Have = append(q.Have, one.ID())
	}
	for _, i := range s.random.Perm(out) {
		s.stepEviction(q, next, time.Duration(s.random.Int64N(int64(3*time.Second))))
		s.giveNode(i, s.old, next)
	}
	for s.chance(50) {
		s.stepEviction(q, next, time.Duration(s.random.Int64N(int64(2*time.Second))))
	}
	p, err := s.stepEviction(q, next, rotationTime)
	if err != nil || !p.Done {
		s.t.Fatalf("step %d of %d (%s) waits for %s: %v", p.Step, p.Steps, p.Doing, strings.Join(p.Waiting, "; "), err)
	}
	stop()
	s.recover()
	for _, i := range s.stay() {
		s.giveNode(i, next)
	}
	if slices.Contains(s.Live(), out) {
		s.Kill(out)
	}
	s.check()
	for _, i := range s.stay() {
		if slices.ContainsFunc(s.Nodes[i].Status().Members, func(m flotilla.Member) bool { return m.ID == id }) {
			s.t.Errorf("n%d takes the evicted node for a member", i)
		}
	}
	s.wantRefused(s.client(s.old))
}

// stepEviction asks for steps for that time, or until the end, as a new operator.
func (s *rotationSchedule) stepEviction(q remote.EvictRequest, next flotilla.Secret, d time.Duration) (p remote.EvictReply, err error) {
	c := s.client(s.old, next)
	defer c.Close()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if p, err = c.Evict(s.t.Context(), q, ""); err == nil {
			// Without a majority of the others an eviction cannot begin, and says so.
			if p.Refused && !strings.Contains(p.Doing, "start the others first") {
				s.t.Fatalf("refused: %s", p.Doing)
			}
			if p.Done {
				return p, nil
			}
		}
	}
	return p, err
}
