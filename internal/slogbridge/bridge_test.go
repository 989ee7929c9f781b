package slogbridge

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

type keyring struct{ Key string }

func (k *keyring) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("key", k.Key)
	return nil
}

func TestZapBridge(t *testing.T) {
	var nobody *net.TCPAddr
	for _, tc := range []struct {
		name string
		log  func(*zap.Logger)
		want string
	}{
		{"levels", func(l *zap.Logger) { l.Debug("a"); l.Info("b"); l.Warn("c"); l.Error("d") },
			"level=DEBUG msg=a\nlevel=DEBUG msg=b\nlevel=WARN msg=c\nlevel=ERROR msg=d\n"},
		{"names", func(l *zap.Logger) { l.Named("a").Named("b").Warn("x") }, "level=WARN msg=x logger=a.b\n"},
		{"scalars", func(l *zap.Logger) {
			l.Warn("x", zap.String("s", "v"), zap.Int("i", -1), zap.Uint8("u", 2), zap.Bool("b", true), zap.Float64("f", .5),
				zap.Duration("d", time.Second), zap.Strings("l", []string{"a", "b"}), zap.Skip())
		}, "level=WARN msg=x s=v i=-1 u=2 b=true f=0.5 d=1s l=\"[a b]\"\n"},
		{"time", func(l *zap.Logger) { l.Warn("x", zap.Time("t", time.Unix(0, 0).UTC())) }, "level=WARN msg=x t=1970-01-01T00:00:00.000Z\n"},
		{"errors", func(l *zap.Logger) { l.Warn("x", zap.Error(errors.New("bad")), zap.Error(nil)) }, "level=WARN msg=x error=bad\n"},
		{"stringers", func(l *zap.Logger) {
			l.Warn("x", zap.Any("a", &net.TCPAddr{Port: 1}), zap.Stringer("b", nobody), zap.Any("n", nil))
		}, "level=WARN msg=x a=:1 b=<nil> n=<nil>\n"},
		{"secrets", func(l *zap.Logger) {
			l.Warn("x", zap.Any("a", keyring{"hunter2"}), zap.Object("b", &keyring{"hunter2"}), zap.Reflect("c", &keyring{"hunter2"}),
				zap.ByteString("d", []byte("hunter2")), zap.Binary("e", []byte("hunter2")))
		}, "level=WARN msg=x a=slogbridge.keyring b=*slogbridge.keyring c=*slogbridge.keyring d=\"7 bytes\" e=\"7 bytes\"\n"},
		{"problems", func(l *zap.Logger) {
			l.Warn("x", zap.Object("problem", zapcore.ObjectMarshalerFunc(func(e zapcore.ObjectEncoder) error {
				e.AddString("type", "urn:ietf:params:acme:error:connection")
				e.AddString("title", "")
				e.AddString("detail", "refused")
				e.AddString("other", "hunter2")
				return nil
			})))
		}, "level=WARN msg=x problem=\"urn:ietf:params:acme:error:connection: refused\"\n"},
		{"with", func(l *zap.Logger) {
			a := l.With(zap.Int("a", 1))
			b, c := a.With(zap.Int("b", 2)), a.With(zap.Int("c", 3))
			b.Warn("x")
			c.Warn("x")
		}, "level=WARN msg=x a=1 b=2\nlevel=WARN msg=x a=1 c=3\n"},
		{"scanners are no error", func(l *zap.Logger) { l.Error("tls-alpn challenge", zap.Error(errors.New("bad"))) },
			"level=DEBUG msg=\"tls-alpn challenge\" error=bad\n"},
		{"what a line of flotilla says", func(l *zap.Logger) {
			l.Info("certificate obtained successfully")
			l.Error("could not get certificate from issuer", zap.Error(errors.New("bad")))
			l.Error("validating authorization")
			l.Error("will retry", zap.Int("attempt", 1))
		}, "level=DEBUG msg=\"certificate obtained successfully\"\n" +
			"level=DEBUG msg=\"could not get certificate from issuer\" error=bad\n" +
			"level=DEBUG msg=\"validating authorization\"\n" +
			"level=DEBUG msg=\"will retry\" attempt=1\n"},
		{"what no line of flotilla says", func(l *zap.Logger) {
			l.Info("new ACME account registered")
			l.Info("certificate expired beyond grace period; cleaning up")
			l.Error("challenge failed")
			l.Error("will retry", zap.Int("attempt", 2))
			l.Error("job failed")
			l.Error("final attempt; giving up")
		}, "level=INFO msg=\"new ACME account registered\"\n" +
			"level=INFO msg=\"certificate expired beyond grace period; cleaning up\"\n" +
			"level=INFO msg=\"challenge failed\"\n" +
			"level=WARN msg=\"will retry\" attempt=2\n" +
			"level=WARN msg=\"job failed\"\n" +
			"level=ERROR msg=\"final attempt; giving up\"\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			tc.log(NewZap(testlog.To(&out, slog.LevelDebug)))
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("level of the logger counts", func(t *testing.T) {
		var out bytes.Buffer
		l := NewZap(testlog.To(&out, slog.LevelWarn))
		l.Info("no")
		l.Error("will retry", zap.Int("attempt", 1))
		l.Warn("yes")
		if out.String() != "level=WARN msg=yes\n" {
			t.Errorf("%q", out.String())
		}
	})
	NewZap(nil).With(zap.Int("a", 1)).Error("to nobody")
}

func TestHclogBridge(t *testing.T) {
	for _, tc := range []struct {
		name string
		log  func(hclog.Logger)
		want string
	}{
		{"levels", func(l hclog.Logger) {
			l.Trace("a")
			l.Debug("b")
			l.Info("c")
			l.Warn("d")
			l.Error("e")
			l.Log(hclog.Off, "f")
		},
			"level=DEBUG msg=a\nlevel=DEBUG msg=b\nlevel=DEBUG msg=c\nlevel=WARN msg=d\nlevel=ERROR msg=e\n"},
		{"elections are ordinary", func(l hclog.Logger) {
			l.Warn("heartbeat timeout reached, starting election", "last-leader-id", "x")
			l.Warn("Election timeout reached, restarting election")
			l.Warn("failed to contact quorum of nodes, stepping down")
			l.Warn("failed to contact", "time", time.Second)
			l.Error("failed to heartbeat to", "peer", "x")
			l.Error("failed to appendEntries to", "peer", "x")
			l.Error("failed to commit logs")
		}, "level=DEBUG msg=\"heartbeat timeout reached, starting election\" last-leader-id=x\n" +
			"level=DEBUG msg=\"Election timeout reached, restarting election\"\n" +
			"level=DEBUG msg=\"failed to contact quorum of nodes, stepping down\"\n" +
			"level=DEBUG msg=\"failed to contact\" time=1s\n" +
			"level=DEBUG msg=\"failed to heartbeat to\" peer=x\n" +
			"level=WARN msg=\"failed to appendEntries to\" peer=x\n" +
			"level=ERROR msg=\"failed to commit logs\"\n"},
		{"a follower that needs a snapshot", func(l hclog.Logger) {
			l.Error("failed to get log", "index", 1, "error", raft.ErrLogNotFound)
			l.Error("failed to get log", "index", 1, "error", errors.New("bad"))
		}, "level=DEBUG msg=\"failed to get log\" index=1 error=\"log not found\"\n" +
			"level=ERROR msg=\"failed to get log\" index=1 error=bad\n"},
		{"values", func(l hclog.Logger) {
			l.Info("x", "f", hclog.Fmt("%d-%s", 1, "a"), "empty", hclog.Format{}, "e", errors.New("bad"), "a", &net.TCPAddr{Port: 1}, 7, 8)
		}, "level=DEBUG msg=x f=1-a empty=\"\" e=bad a=:1 7=8\n"},
		{"odd", func(l hclog.Logger) { l.Info("x", "a", 1, "b") }, "level=DEBUG msg=x a=1 EXTRA_VALUE_AT_END=b\n"},
		{"names and with", func(l hclog.Logger) {
			a := l.Named("raft").With("a", 1)
			a.Named("sub").With("b", 2).Info("x")
			a.With("c", 3).ResetNamed("y").Info("x")
			a.Info(fmt.Sprint(a.Name(), a.ImpliedArgs()))
		}, "level=DEBUG msg=x logger=raft.sub a=1 b=2\nlevel=DEBUG msg=x logger=y a=1 c=3\nlevel=DEBUG msg=\"raft[a 1]\" logger=raft a=1\n"},
		{"standard logger", func(l hclog.Logger) {
			l.StandardLogger(nil).Println("x")
			l.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Error}).Print("y")
		}, "level=DEBUG msg=x\nlevel=ERROR msg=y\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			tc.log(NewHclog(testlog.To(&out, slog.LevelDebug), nobodyAbsent))
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("absent peers", func(t *testing.T) {
		var out bytes.Buffer
		here, away := strings.Repeat("a", 32), strings.Repeat("b", 32)
		l := NewHclog(testlog.To(&out, slog.LevelInfo), func(id string) bool { return id == away })
		for _, id := range []string{here, away} {
			l.Error("failed to heartbeat to", "peer", id)
			l.Error("failed to install snapshot", "peer", id)
			l.Error("failed to send snapshot to", "peer", raft.Server{ID: raft.ServerID(id)})
			l.Error("failed to commit logs", "peer", id)
		}
		want := "level=ERROR msg=\"failed to install snapshot\" peer=" + here + "\n" +
			"level=ERROR msg=\"failed to send snapshot to\" peer=\"{Suffrage:Voter ID:" + here + " Address:}\"\n" +
			"level=ERROR msg=\"failed to commit logs\" peer=" + here + "\nlevel=ERROR msg=\"failed to commit logs\" peer=" + away + "\n"
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("level", func(t *testing.T) {
		var out bytes.Buffer
		l := NewHclog(testlog.To(&out, slog.LevelWarn), nobodyAbsent)
		l.SetLevel(hclog.Trace)
		l.Info("no")
		if l.GetLevel() != hclog.Warn || l.IsTrace() || l.IsDebug() || l.IsInfo() || !l.IsWarn() || !l.IsError() || out.Len() != 0 {
			t.Errorf("level %v, wrote %q", l.GetLevel(), out.String())
		}
	})
	nobody := NewHclog(nil, nobodyAbsent)
	nobody.Named("a").With("b", 1).Error("to nobody")
	if nobody.IsError() || nobody.GetLevel() != hclog.Off {
		t.Error("a logger to nobody is enabled")
	}
}

// nobodyAbsent is for a cluster whose members are all there.
func nobodyAbsent(string) bool { return false }
