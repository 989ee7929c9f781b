package expiry

import (
	"container/heap"
	"time"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// queue has items by the end of their time. Make it with newQueue.
type queue struct {
	heap   ends
	byName map[string]*timed
}

// timed is an item and the end of its time.
type timed struct {
	state.ItemAt
	end time.Time
	at  int // its place in the heap
}

func newQueue() *queue { return &queue{byName: make(map[string]*timed)} }

// observe notes that an item is as given from now on. Its time begins if it is another one than the
// queue has.
func (q *queue) observe(name string, i *state.Item, now time.Time) {
	t := q.byName[name]
	switch {
	case i == nil || i.TTL == 0:
		if t != nil {
			q.remove(t)
		}
	case t == nil:
		q.add(state.ItemAt{Name: name, Renewed: i.Renewed}, now.Add(i.TTL))
	case t.Renewed != i.Renewed:
		t.Renewed, t.end = i.Renewed, now.Add(i.TTL)
		heap.Fix(&q.heap, t.at)
	}
}

// add adds an item that the queue has not.
func (q *queue) add(i state.ItemAt, end time.Time) {
	t := &timed{ItemAt: i, end: end}
	q.byName[i.Name] = t
	heap.Push(&q.heap, t)
}

func (q *queue) remove(t *timed) {
	heap.Remove(&q.heap, t.at)
	delete(q.byName, t.Name)
}

// restart makes the queue that of a state. An item that it has already goes on.
func (q *queue) restart(s *state.State, now time.Time) {
	for name, t := range q.byName {
		if s.Items.Get(name) == nil {
			q.remove(t)
		}
	}
	for name, i := range state.Each(s.Items.ByName, nil) {
		q.observe(string(name), i, now)
	}
}

// again puts back what could not be deleted, to be looked at again at a time.
func (q *queue) again(items []state.ItemAt, at time.Time) {
	for _, i := range items {
		if q.byName[i.Name] == nil {
			q.add(i, at)
		}
	}
}

// next returns the earliest end, and false if there is none.
func (q *queue) next() (end time.Time, ok bool) {
	if len(q.heap) == 0 {
		return time.Time{}, false
	}
	return q.heap[0].end, true
}

// take takes out what is over, as many items as one command may have.
func (q *queue) take(now time.Time) (over []state.ItemAt) {
	for len(q.heap) > 0 && !q.heap[0].end.After(now) && len(over) < maxExpire {
		t := q.heap[0]
		q.remove(t)
		over = append(over, t.ItemAt)
	}
	return over
}

// ends implements heap.Interface: the earliest end is the first.
type ends []*timed

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].end.Before(e[j].end) }

func (e ends) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].at, e[j].at = i, j
}

// Push adds an element at the end.
func (e *ends) Push(x any) {
	t := x.(*timed)
	t.at = len(*e)
	*e = append(*e, t)
}

// Pop takes out the last element.
func (e *ends) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*e = old[:len(old)-1]
	return last
}
