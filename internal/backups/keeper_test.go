package backups

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// site is a Store in memory, and the cluster that a Keeper keeps backed up. A backup is the index
// in decimal digits.
type site struct {
	*Keeper

	mu      sync.Mutex // guards what follows
	files   map[string]string
	index   uint64
	last    *Verified
	made    []time.Duration // when backups were recorded, since the begin
	begun   time.Time
	changed uint64
	changes notify.Signal

	saveErr, recordErr error
	removeErr          error
	loadErr, readErr   error               // readErr comes after the content
	fileErr            map[string]error    // of opening one
	damage             func(string) string // what happens to a file in the store
	slow, listSlow     time.Duration       // of Make and List
}

func newSite(every time.Duration, keep int) *site {
	s := &site{files: make(map[string]string), index: 1, begun: time.Now(), damage: func(text string) string { return text }}
	s.Keeper = New(Config{
		Store: s, Every: every, Keep: keep,
		Make: func(_ context.Context, w io.Writer) (Made, error) {
			time.Sleep(of(s, func() time.Duration { return s.slow }))
			index := of(s, func() uint64 { return s.index })
			n, err := io.WriteString(w, strconv.FormatUint(index, 10))
			return Made{Index: index, Time: time.Now(), Size: int64(n)}, err
		},
		Verify: func(r io.Reader) (Made, error) {
			b, err := io.ReadAll(r)
			if err != nil {
				return Made{}, err
			}
			index, err := strconv.ParseUint(string(b), 10, 64)
			return Made{Index: index, Size: int64(len(b))}, err
		},
		Record: func(_ context.Context, v Verified) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.recordErr == nil {
				s.last, s.made = &v, append(s.made, time.Since(s.begun))
			}
			return s.recordErr
		},
		Last: func() (Verified, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.last == nil {
				return Verified{}, false
			}
			return *s.last, true
		},
		Changed: func() uint64 { return of(s, func() uint64 { return s.changed }) },
		Changes: &s.changes,
		Cluster: func() string { return cluster },
		Node:    func() string { return "n" },
		Log:     slog.New(slog.DiscardHandler),
	})
	return s
}

func (s *site) Save(_ context.Context, name string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saveErr == nil {
		s.files[name] = s.damage(b.String())
	}
	return s.saveErr
}

func (s *site) Load(_ context.Context, name string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, ok := s.files[name]
	switch {
	case !ok:
		return nil, fs.ErrNotExist
	case s.loadErr != nil:
		return nil, s.loadErr
	case s.fileErr[name] != nil:
		return nil, s.fileErr[name]
	case s.readErr != nil:
		return io.NopCloser(io.MultiReader(strings.NewReader(text), iotest.ErrReader(s.readErr))), nil
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

func (s *site) List(context.Context) ([]string, error) {
	time.Sleep(of(s, func() time.Duration { return s.listSlow }))
	return of(s, func() []string { return slices.Collect(maps.Keys(s.files)) }), nil
}

func (s *site) Remove(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removeErr == nil {
		delete(s.files, name)
	}
	return s.removeErr
}

func (s *site) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// of returns what f returns, which looks at s.
func of[T any](s *site, f func() T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}

// certificate stores a certificate.
func (s *site) certificate() {
	s.change(func() {
		s.index++
		s.changed = s.index
	})
	s.changes.Notify()
}

// run runs the Keeper while f runs.
func (s *site) run(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	synctest.Wait()
	f()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returns %v", err)
	}
}

func (s *site) wantMade(t *testing.T, want ...time.Duration) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, of(s, func() []time.Duration { return s.made })); diff != "" {
		t.Errorf("backups were made at (-want +got):\n%s", diff)
	}
}

// The first backup is made at once, and then one in every period.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(time.Hour, 3)
		s.run(t, func() {
			time.Sleep(5*time.Hour + time.Minute)
			s.wantMade(t, 0, time.Hour, 2*time.Hour, 3*time.Hour, 4*time.Hour, 5*time.Hour)
		})
		if len(s.files) != 3 {
			t.Errorf("%d files are kept", len(s.files))
		}
		// Another node goes on, and does not begin anew.
		s.run(t, func() {
			time.Sleep(time.Hour)
			s.wantMade(t, 0, time.Hour, 2*time.Hour, 3*time.Hour, 4*time.Hour, 5*time.Hour, 6*time.Hour)
		})
	})
}

// After a certificate has changed another backup is made within ten seconds, and one for all that
// change together. Other entries make none.
func TestCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(24*time.Hour, 3)
		s.run(t, func() {
			time.Sleep(time.Minute)
			s.certificate()
			time.Sleep(time.Second)
			s.certificate()
			time.Sleep(time.Second)
			s.change(func() { s.index++ })
			s.changes.Notify()
			time.Sleep(time.Hour)
			s.wantMade(t, 0, time.Minute+quiet)
			s.certificate()
			time.Sleep(quiet)
			synctest.Wait()
			s.certificate() // right after the backup
			time.Sleep(10 * time.Second)
			begin := time.Hour + time.Minute + 2*time.Second
			s.wantMade(t, 0, time.Minute+quiet, begin+quiet, begin+quiet+shortest)
		})
		// One that came while nobody made backups counts too.
		s.certificate()
		s.run(t, func() {
			time.Sleep(10 * time.Second)
			if !of(s, func() bool { return s.last.Index == s.index }) {
				t.Error("a certificate was forgotten")
			}
		})
	})
}

// A backup that takes long leaves time for other things, and one that hangs is a failure.
func TestSlowBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(24*time.Hour, 3)
		s.slow = 10 * time.Second
		s.run(t, func() {
			for range 100 {
				s.certificate()
				time.Sleep(time.Second)
			}
			var want []time.Duration
			for made := 10 * time.Second; made < 100*time.Second; made += longest + 10*time.Second {
				want = append(want, made)
			}
			s.wantMade(t, want...)
			s.change(func() { s.slow = 2 * time.Minute })
			time.Sleep(2*time.Second + stuck - time.Second) // the next one begins after 102 s
			if why := s.Failure(); why != "" {
				t.Errorf("too early: %s", why)
			}
			time.Sleep(2 * time.Second)
			if why := s.Failure(); !strings.Contains(why, "was begun at 2000-01-01T00:01:42Z and is not done") {
				t.Errorf("a backup that hangs: %q", why)
			}
			time.Sleep(2 * time.Minute)
			if why := s.Failure(); why != "" {
				t.Errorf("afterwards: %s", why)
			}
		})
	})
}

// What was not verified does not count. It is tried again, less and less often, and old backups
// stay.
func TestFailures(t *testing.T) {
	full := errors.New("the disk is full")
	for name, test := range map[string]struct {
		fault func(s *site)
		want  string
		files int // in the end, before the fault is over
	}{
		"storing":   {func(s *site) { s.saveErr = full }, "storing it: the disk is full", 1},
		"recording": {func(s *site) { s.recordErr = full }, "telling the cluster of it: the disk is full", 6},
		"damage":    {func(s *site) { s.damage = func(string) string { return "x" } }, "it cannot be restored, and is removed: ", 1},
		"a cut":     {func(s *site) { s.damage = func(text string) string { return text + "0" } }, "bytes up to entry 20 come back", 1},
		"loss":      {func(s *site) { s.damage = func(string) string { clear(s.files); return "" } }, "cannot be restored", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(time.Hour, 3)
				s.run(t, func() {
					s.change(func() {
						s.index = 2
						test.fault(s)
					})
					time.Sleep(time.Hour + 5*time.Minute) // tried after 0, 10, 30, 70 and 150 s
					s.wantMade(t, 0)
					if why := s.Failure(); !strings.Contains(why, test.want) {
						t.Errorf("the failure is %q", why)
					}
					if n := of(s, func() int { return len(s.files) }); n != test.files {
						t.Errorf("%d files are stored", n)
					}
					s.change(func() {
						s.saveErr, s.recordErr, s.damage = nil, nil, func(text string) string { return text }
					})
					time.Sleep(laterTry)
					if n := of(s, func() int { return len(s.made) }); n != 2 || s.Failure() != "" {
						t.Errorf("when the fault is over %d backups count, and the failure is %q", n, s.Failure())
					}
				})
				if s.Failure() != "" {
					t.Error("a node that makes no backups has failed to make one")
				}
			})
		})
	}
}

// A backup that cannot be read back does not count, and stays. It counts as soon as it can be read,
// and no other one is made for it, unless one is due.
func TestUnread(t *testing.T) {
	eio := errors.New("input/output error")
	for name, fail := range map[string]func(s *site, err error){
		"opening": func(s *site, err error) { s.loadErr = err },
		"reading": func(s *site, err error) { s.readErr = err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(time.Hour, 3)
				s.change(func() { fail(s, eio) })
				files := func() []string { return of(s, func() []string { return slices.Sorted(maps.Keys(s.files)) }) }
				s.run(t, func() {
					time.Sleep(50 * time.Minute)
					first := files()
					if why := s.Failure(); len(first) != 1 || !strings.Contains(why, "it is stored, and counts when it can be read back: input/output error") {
						t.Fatalf("stored are %q, and the failure is %q", first, why)
					}
					s.wantMade(t)
					s.change(func() { fail(s, nil) })
					time.Sleep(laterTry - time.Minute) // after an hour another one is due
					if diff := cmp.Diff(first, files()); diff != "" || s.Failure() != "" || len(of(s, func() []time.Duration { return s.made })) != 1 {
						t.Errorf("it does not count: %q %s", s.Failure(), diff)
					}
					if last := of(s, func() Verified { return *s.last }); last.Name != first[0] || last.Index != 1 {
						t.Errorf("the last one is %+v", last)
					}

					s.change(func() { fail(s, eio) })
					s.certificate()
					time.Sleep(5 * time.Minute)
					second := files()
					s.certificate()
					time.Sleep(time.Minute + laterTry)
					if third := files(); len(second) != 2 || len(third) != 3 {
						t.Errorf("after a certificate %q are stored, and after another one %q", second, third)
					}
					s.change(func() { fail(s, nil) })
					time.Sleep(laterTry)
					last := of(s, func() Verified { return *s.last })
					if now := files(); last.Index != 3 || s.Failure() != "" || slices.Contains(now, second[1]) || !slices.Contains(now, last.Name) {
						t.Errorf("the last one is %+v, stored are %q, and the failure is %q", last, now, s.Failure())
					}
				})
			})
		})
	}
}

// What comes back and is no backup is removed, also when it could not be read before.
func TestUnreadAndDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(time.Hour, 3)
		s.change(func() { s.readErr, s.damage = errors.New("input/output error"), func(string) string { return "x" } })
		s.run(t, func() {
			time.Sleep(time.Minute)
			s.change(func() { s.readErr, s.damage = nil, func(text string) string { return text } })
			time.Sleep(10 * time.Minute)
			if n := of(s, func() int { return len(s.files) }); n != 1 || len(of(s, func() []time.Duration { return s.made })) != 1 || s.Failure() != "" {
				t.Errorf("%d files are stored, and the failure is %q", n, s.Failure())
			}
		})
	})
}

// A store that hangs does not keep the node from closing.
func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(time.Hour, 3)
		s.slow = time.Hour
		s.run(t, func() { time.Sleep(time.Minute) })
		if took := time.Since(s.begun); took != time.Minute+patience {
			t.Errorf("it takes %v", took)
		}
		time.Sleep(time.Hour) // what was left alone ends
		s.wantMade(t)
	})
}

// The clock of the node that made the last backup was ahead.
func TestClockThatWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(time.Hour, 3)
		s.last = &Verified{Made: Made{Index: 1, Time: time.Now().AddDate(10, 0, 0)}}
		s.run(t, func() {
			time.Sleep(2*time.Hour + time.Minute)
			s.wantMade(t, time.Hour, 2*time.Hour)
		})
	})
}

// What the node before has stored and could not read back is read again when a backup counts. It
// goes if it still cannot be read, so that it takes the place of none that counts.
func TestUnreadOfAnotherNode(t *testing.T) {
	eio := errors.New("input/output error")
	for name, test := range map[string]struct {
		after func(s *site, unread string) // before the next node makes a backup
		want  func(first, unread, second string) []string
	}{
		"it cannot be read": {
			func(s *site, unread string) { s.fileErr = map[string]error{unread: eio} },
			func(first, _, second string) []string { return []string{first, second} },
		},
		"it can be read": { // then it is the newest of its period
			func(*site, string) {},
			func(_, unread, second string) []string { return []string{unread, second} },
		},
		"it cannot be restored": { // it stays, and takes no place
			func(s *site, unread string) { s.files[unread] = "x" },
			func(first, unread, second string) []string { return []string{first, unread, second} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(time.Hour, 3)
				s.run(t, func() {
					time.Sleep(50 * time.Minute)
					s.change(func() { s.loadErr = eio })
					s.certificate()
					time.Sleep(9 * time.Minute)
				})
				stored := slices.Sorted(maps.Keys(s.files))
				if len(stored) != 2 || stored[0] != s.last.Name {
					t.Fatalf("stored are %q, and the last one is %+v", stored, s.last)
				}
				s.loadErr = nil
				test.after(s, stored[1])
				time.Sleep(2 * time.Minute)
				s.run(t, func() { time.Sleep(time.Minute) })
				want := test.want(stored[0], stored[1], s.last.Name)
				if diff := cmp.Diff(want, slices.Sorted(maps.Keys(s.files))); diff != "" || len(s.made) != 2 {
					t.Errorf("made at %v; stored are (-want +got):\n%s", s.made, diff)
				}
			})
		})
	}
}

// A file that is later than the last one that counts may count: the clock of its node was ahead, or
// the cluster was restored since. It stays.
func TestLaterThanTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(time.Hour, 3)
		ahead := Name(cluster, s.begun.Add(5*time.Hour))
		s.files[ahead] = "1"
		s.last = &Verified{Name: Name(cluster, s.begun), Made: Made{Index: 1, Time: s.begun, Size: 1}}
		s.files[s.last.Name] = "1"
		s.run(t, func() { time.Sleep(time.Hour + time.Minute) })
		if len(s.made) != 1 || len(s.files) != 3 {
			t.Errorf("made at %v; stored are %v", s.made, s.files)
		}
	})
}

// A file that does not go is removed with the next one that counts, and takes no place until then.
func TestUnreadDoesNotGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(time.Hour, 3)
		s.run(t, func() {
			time.Sleep(40 * time.Minute)
			s.change(func() { s.loadErr, s.removeErr = errors.New("input/output error"), errors.New("not now") })
			s.certificate()
			time.Sleep(18 * time.Minute)
			stored := of(s, func() []string { return slices.Sorted(maps.Keys(s.files)) })
			s.certificate()
			time.Sleep(3 * time.Minute) // another one is stored in the next period
			s.change(func() { s.loadErr = nil })
			time.Sleep(laterTry)
			if n := of(s, func() int { return len(s.made) }); n != 2 || len(stored) != 2 {
				t.Fatalf("%d count, and %q were stored first", n, stored)
			}
			s.change(func() { s.removeErr = nil })
			time.Sleep(time.Hour)
			got := of(s, func() []string { return slices.Sorted(maps.Keys(s.files)) })
			if !slices.Contains(got, stored[0]) || slices.Contains(got, stored[1]) {
				t.Errorf("first there were %q, now %q", stored, got)
			}
		})
	})
}

// A store that hangs while old backups are removed does not keep the node from closing, and it
// shows.
func TestHangingRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(time.Hour, 3)
		s.listSlow = time.Hour
		s.run(t, func() {
			time.Sleep(stuck + time.Second)
			if why := s.Failure(); !strings.Contains(why, "is not done") {
				t.Errorf("the failure is %q", why)
			}
		})
		if took := time.Since(s.begun); took != stuck+time.Second+patience {
			t.Errorf("it takes %v", took)
		}
		time.Sleep(time.Hour)
	})
}
