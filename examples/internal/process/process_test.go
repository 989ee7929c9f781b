package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const variable = "FLOTILLA_PROCESS_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(variable) != "" {
		var s settings
		in, err := ReadSettings(&s)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, "started", s.Greeting)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				os.Exit(1)
			}
			switch line {
			case "exit\n":
				os.Exit(0)
			case "fail\n":
				os.Exit(3)
			}
			fmt.Print(s.Greeting, " ", line)
		}
	}
	os.Exit(m.Run())
}

// settings are those of the process of the test.
type settings struct{ Greeting string }

const limit = 10 * time.Second

// A process gets its settings and lines, and can be killed, ended and started again.
func TestProcess(t *testing.T) {
	lines := make(chan string, 10)
	var copied bytes.Buffer
	p := New(Config{
		Name: "n1", Variable: variable, LogTo: &copied,
		OnLine: func(line []byte) { lines <- strings.TrimSpace(string(line)) },
	})
	if p.Running() || p.Exited() != nil || p.PID() != 0 {
		t.Error("the process runs before it was started")
	}
	p.Kill()
	for _, test := range []struct {
		name string
		end  func() error
		want string // part of the error of AwaitExit; empty: none
	}{
		{"ends itself", func() error { return p.Send([]byte("exit")) }, ""},
		{"fails", func() error { return p.Send([]byte("fail")) }, "exit status 3"},
		{"terminated", func() error { return p.Signal(syscall.SIGTERM) }, "terminated"},
		{"killed", func() error { p.Kill(); return nil }, "killed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := p.Start(settings{"hello"}); err != nil {
				t.Fatal(err)
			}
			if err := p.Send([]byte("world")); err != nil {
				t.Fatal(err)
			}
			if got := <-lines; got != "hello world" {
				t.Errorf("the process prints %q", got)
			}
			if !p.Running() {
				t.Error("the process does not run")
			}
			if err := test.end(); err != nil {
				t.Fatal(err)
			}
			err := p.AwaitExit(t.Context(), limit)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("the process ends with %v, want %q", err, test.want)
			}
			if p.Running() {
				t.Error("the process runs after its end")
			}
		})
	}
	want := strings.TrimSpace(strings.Repeat("started hello\n", 4))
	if got := p.Log().Tail(10); got != want || strings.TrimSpace(copied.String()) != want {
		t.Errorf("it has logged %q, and passed on %q", got, copied.String())
	}
}

func TestAwait(t *testing.T) {
	errNot := errors.New("not yet")
	calls := 0
	if err := Await(t.Context(), limit, func(context.Context) error {
		if calls++; calls < 3 {
			return errNot
		}
		return nil
	}); err != nil || calls != 3 {
		t.Errorf("%d calls, %v", calls, err)
	}
	err := Await(t.Context(), 50*time.Millisecond, func(context.Context) error { return errNot })
	if !errors.Is(err, errNot) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the limit: %v", err)
	}
	calls = 0
	err = Await(t.Context(), limit, func(context.Context) error {
		calls++
		return fmt.Errorf("broken: %w", &PermanentError{errNot})
	})
	if calls != 1 || !errors.Is(err, errNot) {
		t.Errorf("a permanent error: %d calls, %v", calls, err)
	}
}

func TestLog(t *testing.T) {
	l := NewLog(nil)
	fmt.Fprint(l, "level=INFO a\nlevel=WARN b\nlevel=I")
	fmt.Fprint(l, "NFO c\nlevel=ERROR d\npart")
	if got, want := l.Tail(2), "level=INFO c\nlevel=ERROR d"; got != want {
		t.Errorf("tail %q, want %q", got, want)
	}
	if got, want := l.Problems(5), "level=WARN b\nlevel=ERROR d"; got != want {
		t.Errorf("problems %q, want %q", got, want)
	}
}

// Ports are free, different, and not given to two callers at once.
func TestPorts(t *testing.T) {
	if err := LoopbackAvailable(); err != nil {
		t.Skip(err)
	}
	seen := make(map[int]bool)
	for range 2 {
		ports, release, err := ClaimPorts(20, 3)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		for _, p := range ports {
			if seen[p] || p < firstClaimed || p > lastClaimed {
				t.Errorf("port %d was claimed twice, or is out of range", p)
			}
			seen[p] = true
		}
	}
	ports, err := FreePorts(20)
	if err != nil || len(ports) != 20 {
		t.Errorf("ports %v, %v", ports, err)
	}
}
