package notify

import (
	"testing"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

func TestSignalWait(t *testing.T) {
	var s Signal
	s.Notify() // nobody waits, and nobody is woken later
	first, second := s.Wait(), s.Wait()
	select {
	case <-first:
		t.Fatal("a channel is closed before a Notify")
	default:
	}
	s.Notify()
	<-first
	<-second
	select {
	case <-s.Wait():
		t.Error("a channel that was taken after a Notify is closed by it")
	default:
	}
}

func TestTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks Tasks
		release, ended, closed := make(chan struct{}), false, false
		tasks.Go(func() {
			<-release
			ended = true
		})
		go func() {
			tasks.Close()
			closed = true
		}()
		synctest.Wait()
		if closed {
			t.Fatal("Close does not wait for a goroutine that runs")
		}
		tasks.Go(func() { t.Error("a goroutine is started after Close") })
		close(release)
		synctest.Wait()
		if !ended || !closed {
			t.Errorf("ended: %v, closed: %v; want both", ended, closed)
		}
		tasks.Close() // again
	})
}
