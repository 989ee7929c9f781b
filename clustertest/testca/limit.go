package testca

import (
	"fmt"
	"net/http"
	"time"
)

// Refuse has f decide about each request, from now on. It returns nil for a request that is not
// refused. It may call the authority. A nil f refuses nothing.
func (a *Authority) Refuse(f func(Request) *Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = f
}

// Limit has an operation answered with status 429 and a Retry-After for d from now on. It replaces
// an earlier limit of that operation.
func (a *Authority) Limit(op Operation, d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limits[op] = &limit{until: a.Now().Add(d)}
}

// Early returns how many requests for an operation have come although an answer had said that none
// should, since Limit was called last.
func (a *Authority) Early(op Operation) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.limits[op]; l != nil {
		return l.early
	}
	return 0
}

// refusal returns the refusal of a request, nil if it is not refused.
func (a *Authority) refusal(r Request) *Refusal {
	a.mu.Lock()
	f, limited := a.refuse, (*Refusal)(nil)
	if l := a.limits[r.Op]; l != nil {
		if left := l.until.Sub(a.Now()); left > 0 {
			if l.told {
				l.early++
			}
			l.told = true
			seconds := (left + time.Second - 1) / time.Second
			limited = Problem(http.StatusTooManyRequests, "rateLimited", "too many requests for the moment", fmt.Sprint(int(seconds)))
		}
	}
	a.mu.Unlock()
	if limited != nil || f == nil {
		return limited
	}
	return f(r)
}
