package vip

import (
	"os"
	"time"
)

// watch observes changes of this machine's interfaces and their addresses.
type watch struct {
	onNews func(news)
	onLoss func()
	done   chan struct{}
	ended  chan struct{}
}

// subscribePause is between two attempts to subscribe again.
const subscribePause = 100 * time.Millisecond

// newWatch starts to call onNews. Floating addresses that are added or renewed are not news. The
// kernel drops news that are not read fast enough, for example while this process stands still. The
// watch then subscribes again and calls onLoss.
func newWatch(onNews func(news), onLoss func()) (*watch, error) {
	w := &watch{onNews: onNews, onLoss: onLoss, done: make(chan struct{}), ended: make(chan struct{})}
	s, err := subscribe()
	if err != nil {
		return nil, err
	}
	go w.run(s)
	return w, nil
}

func (w *watch) run(s *subscription) {
	defer close(w.ended)
	for {
		stop := make(chan struct{})
		go func(f *os.File) {
			select {
			case <-w.done:
				f.SetReadDeadline(time.Unix(1, 0))
			case <-stop:
			}
		}(s.file)
		s.read(w.onNews)
		close(stop)
		s.file.Close()
		if s = w.again(); s == nil {
			return
		}
		w.onLoss()
	}
}

// again returns a new subscription; nil if the watch is closed.
func (w *watch) again() *subscription {
	for {
		select {
		case <-w.done:
			return nil
		default:
		}
		s, err := subscribe()
		if err == nil {
			return s
		}
		select {
		case <-time.After(subscribePause):
		case <-w.done:
			return nil
		}
	}
}

func (w *watch) close() error {
	close(w.done)
	<-w.ended
	return nil
}
