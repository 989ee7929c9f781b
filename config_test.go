package flotilla_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
)

// WithDefaults says what Open would use, and what Open would say of the values.
func TestWithDefaults(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := flotilla.Config{Dir: dir, Secrets: []flotilla.Secret{flotilla.NewSecret()}}
	got, err := cfg.WithDefaults()
	if err != nil || got.Addr != ":7373" || got.HTTPSAddr != ":443" || got.MaxState != 64<<20 || got.RemoveDead != 24*time.Hour {
		t.Errorf("%+v: %v", got, err)
	}
	if cfg.Addr != "" {
		t.Error("the given Config was changed")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	cfg.TLS.CA = "http://ca.test"
	var wrong *flotilla.ConfigError
	if _, err := cfg.WithDefaults(); !errors.As(err, &wrong) || wrong.Field != "TLS.CA" {
		t.Errorf("an authority without TLS: %v", err)
	}
}

// Every field with a wrong value has its own sentence.
func TestConfigErrors(t *testing.T) {
	secret := flotilla.NewSecret()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct {
		name   string
		change func(*flotilla.Config)
		field  string
		text   string
	}{
		{"no secret", func(c *flotilla.Config) { c.Secrets = nil }, "Secrets", "NewSecret"},
		{"empty secret", func(c *flotilla.Config) { c.Secrets = append(c.Secrets, flotilla.Secret{}) }, "Secrets", "number 2 is empty"},
		{"secret twice", func(c *flotilla.Config) { c.Secrets = append(c.Secrets, secret) }, "Secrets", "number 2 is listed twice"},
		{"directory is a file", func(c *flotilla.Config) { c.Dir = file }, "Dir", file},
		{"directory below a file", func(c *flotilla.Config) { c.Dir = filepath.Join(file, "x") }, "Dir", file},
		{"a guard without the network", func(c *flotilla.Config) { c.Guard, c.PeerDial = true, new(net.Dialer).DialContext }, "Guard", "leave one of the two out"},
		{"home directory of a shell", func(c *flotilla.Config) { c.Dir = "~/data" }, "Dir", "write the path in full"},
		{"home directory of another", func(c *flotilla.Config) { c.Dir = "~me/data" }, "Dir", "write the path in full"},
		{"variable of a shell", func(c *flotilla.Config) { c.Dir = "${HOME}/data" }, "Dir", "write the path in full"},
		{"directory with a newline", func(c *flotilla.Config) { c.Dir += "\n" }, "Dir", "without them"},
		{"backups twice", func(c *flotilla.Config) { c.Backups = flotilla.Backups{Dir: "b", Store: brokenStore{}} }, "Backups.Store", "set one of the two"},
		{"backups too often", func(c *flotilla.Config) { c.Backups = flotilla.Backups{Dir: "b", Every: time.Second} }, "Backups.Every", "a minute or more"},
		{"backups for nobody", func(c *flotilla.Config) { c.Backups = flotilla.Backups{Dir: "b", Keep: -1} }, "Backups.Keep", "above 0"},
		{"backups nowhere", func(c *flotilla.Config) { c.Backups = flotilla.Backups{Every: time.Hour} }, "Backups.Dir", "no place for the backups"},
		{"backups in the home of a shell", func(c *flotilla.Config) { c.Backups.Dir = "~/b" }, "Backups.Dir", "write the path in full"},
		{"backups in a file", func(c *flotilla.Config) { c.Backups.Dir = file }, "Backups.Dir", "backups cannot be written there"},
		{"same address twice", func(c *flotilla.Config) { c.HTTPSAddr, c.HealthAddr = ":8443", ":8443" }, "HealthAddr", "it is :8443, as HTTPSAddr is"},
		{"client port for peers", func(c *flotilla.Config) { c.Addr = ":443" }, "HTTPSAddr", "as Addr is"},
		{"peer without port", func(c *flotilla.Config) { c.Peers = flotilla.Static("10.0.0.1:7373", "10.0.0.2") }, "Peers", `"10.0.0.2" is not the address of a peer`},
		{"peer without host", func(c *flotilla.Config) { c.Peers = flotilla.Static(":7373") }, "Peers", "write host:port"},
		{"peer that is a URL", func(c *flotilla.Config) { c.Peers = flotilla.Static("https://a:7373") }, "Peers", "write host:port"},
		{"peers in one string", func(c *flotilla.Config) { c.Peers = flotilla.Static("a:7373,b:7373") }, "Peers", "write host:port"},
		{"peers by DNS without port", func(c *flotilla.Config) { c.Peers = flotilla.DNS("app") }, "Peers", "write host:port"},
		{"peers by SRV with a port", func(c *flotilla.Config) { c.Peers = flotilla.SRV("app:7373") }, "Peers", "SRV record"},
		{"name with a newline", func(c *flotilla.Config) { c.Name = "a\nb" }, "Name", "cannot be shown"},
		{"long name", func(c *flotilla.Config) { c.Name = strings.Repeat("n", 256) }, "Name", "255"},
		{"long zone", func(c *flotilla.Config) { c.Zone = strings.Repeat("z", 256) }, "Zone", "255"},
		{"zone with a blank at its end", func(c *flotilla.Config) { c.Zone = "z " }, "Zone", "spaces at its ends"},
		{"a witness without peers", func(c *flotilla.Config) { c.Witness, c.Peers = true, nil }, "Peers", "a witness votes in a cluster of other nodes"},
		{"a witness with backups", func(c *flotilla.Config) { c.Witness, c.Backups.Dir = true, "b" }, "Backups", "a witness makes no backups"},
		{"temporary redirect", func(c *flotilla.Config) { c.Redirect = 302 }, "Redirect", "308 or 301, not 302"},
		{"address without port", func(c *flotilla.Config) { c.Addr = "127.0.0.1" }, "Addr", "host:port"},
		{"address with a bad port", func(c *flotilla.Config) { c.Addr = "127.0.0.1:99999" }, "Addr", "99999"},
		{"address in use", func(c *flotilla.Config) { c.Addr = taken.Addr().String() }, "Addr", "cannot listen"},
		{"advertised nothing", func(c *flotilla.Config) { c.Advertise = ":7373" }, "Advertise", "can dial"},
		{"advertised everything", func(c *flotilla.Config) { c.Advertise = "0.0.0.0:7373" }, "Advertise", "can dial"},
		{"advertised no port", func(c *flotilla.Config) { c.Advertise = "host:0" }, "Advertise", "can dial"},
		{"expect a negative number", func(c *flotilla.Config) { c.Expect = -1 }, "Expect", "-1"},
		{"expect too many", func(c *flotilla.Config) { c.Expect = 6 }, "Expect", "1 to 5"},
		{"expect others without peers", func(c *flotilla.Config) { c.Expect, c.Peers = 3, nil }, "Peers", "set Peers"},
		{"unknown timing", func(c *flotilla.Config) { c.Timing = 7 }, "Timing", "LAN, Fast, WAN and Turbo"},
		{"negative quota", func(c *flotilla.Config) { c.MaxState = -1 }, "MaxState", "negative"},
		{"invalid proxy", func(c *flotilla.Config) { c.Proxies = []netip.Prefix{{}} }, "Proxies", "prefix"},
		{"https address", func(c *flotilla.Config) { c.HTTPSAddr = "443" }, "HTTPSAddr", "host:port"},
		{"http address", func(c *flotilla.Config) { c.HTTPAddr = "80" }, "HTTPAddr", "host:port"},
		{"negative patience", func(c *flotilla.Config) { c.Drain.Patience = -1 }, "Drain.Patience", "negative"},
		{"health address", func(c *flotilla.Config) { c.HealthAddr = "x" }, "HealthAddr", "host:port"},
		{"short health token", func(c *flotilla.Config) { c.HealthToken = "planted89012345" }, "HealthToken", "it has fewer than 16 characters"},
		{"health token with a line end", func(c *flotilla.Config) { c.HealthToken = "planted890123456\n" }, "HealthToken", "it has white space"},
		{"CA that is no URL", func(c *flotilla.Config) { c.TLS.CA = "letsencrypt" }, "TLS.CA", "https"},
		{"CA without TLS", func(c *flotilla.Config) { c.TLS.CA = "http://ca.example/dir" }, "TLS.CA", "https"},
		{"e-mail address", func(c *flotilla.Config) { c.TLS.Email = "me" }, "TLS.Email", "admin@example.com"},
		{"development mode for all the world", func(c *flotilla.Config) { *c = flotilla.Config{Addr: "0.0.0.0:0"} }, "Addr", "loopback"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := flotilla.Config{
				Dir: filepath.Join(t.TempDir(), "data"), Addr: "127.0.0.1:0", Secrets: []flotilla.Secret{secret},
				Peers: flotilla.Static("127.0.0.1:1"), Expect: 1,
			}
			dir := cfg.Dir
			test.change(&cfg)
			wantConfigError(t, cfg, test.field, test.text)
			if got, err := os.ReadDir(dir); err == nil && len(got) > 0 {
				t.Errorf("%d files were written", len(got))
			}
		})
	}
}

func TestConfigFromEnv(t *testing.T) {
	secret, other := flotilla.NewSecret(), flotilla.NewSecret()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := strings.Replace(secret.Encode(), "flt1_", "flt1_a", 1)
	for _, test := range []struct {
		name  string
		env   map[string]string
		check func(flotilla.Config) bool // nil: an error
		text  string                     // in the error
	}{
		{"nothing", nil, func(c flotilla.Config) bool { return c.Dir == "" && c.Peers == nil && len(c.Secrets) == 0 }, ""},
		{"plain values", map[string]string{
			"DIR": "d", "NAME": "n", "ADDR": "a:1", "ADVERTISE": "b:2", "ZONE": "hall 1", "EXPECT": "3", "TIMING": "fast", "EMAIL": "me@example.com",
			"ACME_CA": "https://ca", "MAX_STATE": "1000", "HTTPS_ADDR": ":1", "HTTP_ADDR": ":2", "HEALTH_ADDR": ":3", "HEALTH_TOKEN": "0123456789abcdef",
		}, func(c flotilla.Config) bool {
			return c.Dir == "d" && c.Name == "n" && c.Addr == "a:1" && c.Advertise == "b:2" && c.Zone == "hall 1" && c.Expect == 3 && c.Timing == flotilla.Fast &&
				c.TLS.Email == "me@example.com" && c.TLS.CA == "https://ca" && c.MaxState == 1000 && c.HTTPSAddr == ":1" && c.HTTPAddr == ":2" && c.HealthAddr == ":3" && c.HealthToken == "0123456789abcdef"
		}, ""},
		{"secrets", map[string]string{"SECRETS": secret.Encode() + ", " + other.Encode()}, func(c flotilla.Config) bool {
			return cmp.Equal(c.Secrets, []flotilla.Secret{secret, other}, cmp.Comparer(func(a, b flotilla.Secret) bool { return a == b }))
		}, ""},
		{"secrets in a file", map[string]string{"SECRETS_FILE": file("secrets", secret.Encode()+"\n"+other.Encode()+"\n")}, func(c flotilla.Config) bool {
			return len(c.Secrets) == 2 && c.Secrets[1] == other
		}, ""},
		{"secrets twice", map[string]string{"SECRETS": secret.Encode(), "SECRETS_FILE": "x"}, nil, "both set"},
		{"no secrets file", map[string]string{"SECRETS_FILE": filepath.Join(dir, "none")}, nil, "FLOTILLA_SECRETS_FILE names a file that cannot be read"},
		{"empty secrets file", map[string]string{"SECRETS_FILE": file("empty", " \n")}, nil, "empty file"},
		{"wrong secret", map[string]string{"SECRETS": bad}, nil, "FLOTILLA_SECRETS holds no valid secret in place 1"},
		{"health token in a file", map[string]string{"HEALTH_TOKEN_FILE": file("token", "0123456789abcdef\n")}, func(c flotilla.Config) bool {
			return c.HealthToken == "0123456789abcdef"
		}, ""},
		{"health token twice", map[string]string{"HEALTH_TOKEN": bad, "HEALTH_TOKEN_FILE": "x"}, nil, "FLOTILLA_HEALTH_TOKEN and FLOTILLA_HEALTH_TOKEN_FILE are both set"},
		{"no health token file", map[string]string{"HEALTH_TOKEN_FILE": filepath.Join(dir, "none")}, nil, "FLOTILLA_HEALTH_TOKEN_FILE names a file that cannot be read"},
		{"empty health token file", map[string]string{"HEALTH_TOKEN_FILE": file("empty", " \n")}, nil, "Config.HealthToken: FLOTILLA_HEALTH_TOKEN_FILE names an empty file"},
		{"health token with a blank", map[string]string{"HEALTH_TOKEN": bad[:20] + " " + bad[20:]}, nil, "FLOTILLA_HEALTH_TOKEN holds no token that can be used: it has white space"},
		{"peers", map[string]string{"PEERS": "127.0.0.1:7,127.0.0.1:8"}, func(c flotilla.Config) bool {
			got, err := c.Peers(t.Context())
			return err == nil && cmp.Equal(got, []string{"127.0.0.1:7", "127.0.0.1:8"})
		}, ""},
		{"peers by DNS", map[string]string{"PEERS": "dns:localhost:7"}, func(c flotilla.Config) bool { return c.Peers != nil }, ""},
		{"peers by SRV", map[string]string{"PEERS": "srv:_flotilla._tcp.example.com"}, func(c flotilla.Config) bool { return c.Peers != nil }, ""},
		{"peer without port", map[string]string{"PEERS": "a"}, nil, "FLOTILLA_PEERS"},
		{"peers by DNS without port", map[string]string{"PEERS": "dns:a"}, nil, `"dns:"`},
		{"peers by SRV without name", map[string]string{"PEERS": "srv:"}, nil, `"srv:"`},
		{"expect", map[string]string{"EXPECT": "three"}, nil, "FLOTILLA_EXPECT must be a number"},
		{"quota", map[string]string{"MAX_STATE": "64M"}, nil, "FLOTILLA_MAX_STATE must be a number of bytes"},
		{"turbo", map[string]string{"TIMING": "turbo"}, func(c flotilla.Config) bool { return c.Timing == flotilla.Turbo }, ""},
		{"timing", map[string]string{"TIMING": "slow"}, nil, `not "slow"`},
		{"guard", map[string]string{"GUARD": "true"}, func(c flotilla.Config) bool { return c.Guard }, ""},
		{"no guard", map[string]string{"GUARD": "false"}, func(c flotilla.Config) bool { return !c.Guard }, ""},
		{"guard of another kind", map[string]string{"GUARD": "always"}, nil, `FLOTILLA_GUARD must be true or false, not "always"`},
		{"the guard's own variable", map[string]string{"GUARD_PROCESS": "2:1:1:notices"}, func(c flotilla.Config) bool { return !c.Guard }, ""},
		{"no roots", map[string]string{"ACME_ROOTS": filepath.Join(dir, "none")}, nil, "FLOTILLA_ACME_ROOTS"},
		{"roots without a certificate", map[string]string{"ACME_ROOTS": file("roots", "x")}, nil, "without a PEM certificate"},
		{"proxies", map[string]string{"PROXIES": "10.0.0.0/8 192.0.2.1, 2001:db8::/32"}, func(c flotilla.Config) bool {
			return fmt.Sprint(c.Proxies) == "[10.0.0.0/8 192.0.2.1/32 2001:db8::/32]"
		}, ""},
		{"backups", map[string]string{"BACKUPS": "/b, every=36h,keep=3"}, func(c flotilla.Config) bool {
			return c.Backups == flotilla.Backups{Dir: "/b", Every: 36 * time.Hour, Keep: 3}
		}, ""},
		{"backups without more", map[string]string{"BACKUPS": "/b"}, func(c flotilla.Config) bool { return c.Backups == flotilla.Backups{Dir: "/b"} }, ""},
		{"backups nowhere", map[string]string{"BACKUPS": ",every=1h"}, nil, "FLOTILLA_BACKUPS has no directory before the first comma"},
		{"backups never", map[string]string{"BACKUPS": "/b,every=0"}, nil, "FLOTILLA_BACKUPS must have a duration such as 24h after every="},
		{"backups for nobody", map[string]string{"BACKUPS": "/b,keep=none"}, nil, "FLOTILLA_BACKUPS must have a number above 0 after keep="},
		{"backups of something", map[string]string{"BACKUPS": "/b,keeps=3"}, nil, `FLOTILLA_BACKUPS has "keeps=3", and only every= and keep= are known`},
		{"misspelt", map[string]string{"EXPECTS": "3"}, nil, "Config.Expect: FLOTILLA_EXPECTS is not known; is FLOTILLA_EXPECT meant?"},
		{"misspelt, set to nothing", map[string]string{"PEER": ""}, nil, "FLOTILLA_PEER is not known; is FLOTILLA_PEERS meant?"},
		{"a secret under a wrong name", map[string]string{"SECRET": secret.Encode()}, nil, "FLOTILLA_SECRET is not known; is FLOTILLA_SECRETS meant?"},
		{"no name of ours", map[string]string{"WHATEVER_THIS_IS": "3"}, nil, "flotilla: FLOTILLA_WHATEVER_THIS_IS is not known; unset it"},
		{"a service of Kubernetes", map[string]string{
			"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "443", "SERVICE_PORT_HTTPS": "443", "PORT": "tcp://10.0.0.1:443", "PORT_443_TCP": "tcp://10.0.0.1:443",
			"API_SERVICE_HOST": "10.0.0.2", "API_PORT_80_TCP_ADDR": "10.0.0.2", "TEST_X": "1",
		}, func(c flotilla.Config) bool { return c.Dir == "" }, ""},
		{"beside a service of Kubernetes", map[string]string{"SERVICE_HOST": "10.0.0.1", "API_PORT": "1"}, nil, "FLOTILLA_API_PORT is not known"},
		{"log", map[string]string{"LOG": "warn,json"}, func(c flotilla.Config) bool {
			_, isJSON := c.Logger.Handler().(*slog.JSONHandler)
			return isJSON && c.Logger.Enabled(t.Context(), slog.LevelWarn) && !c.Logger.Enabled(t.Context(), slog.LevelInfo)
		}, ""},
		{"log as text", map[string]string{"LOG": "debug"}, func(c flotilla.Config) bool {
			_, isText := c.Logger.Handler().(*slog.TextHandler)
			return isText && c.Logger.Enabled(t.Context(), slog.LevelDebug)
		}, ""},
		{"log of an unknown level", map[string]string{"LOG": "loud"}, nil, `not "loud"`},
		{"log in an unknown form", map[string]string{"LOG": "info,xml"}, nil, `not "info,xml"`},
		{"log with an empty form", map[string]string{"LOG": "info,"}, nil, `not "info,"`},
		{"wrong proxies", map[string]string{"PROXIES": "balancer"}, nil, `"balancer" is neither`},
	} {
		t.Run(test.name, func(t *testing.T) {
			for k, v := range test.env {
				t.Setenv("FLOTILLA_"+k, v)
			}
			c, err := flotilla.ConfigFromEnv()
			if test.check == nil {
				var ce *flotilla.ConfigError
				if !errors.As(err, &ce) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("%v, want a ConfigError with %q in it", err, test.text)
				}
				if err != nil && strings.Contains(err.Error(), bad[8:40]) {
					t.Errorf("the error shows a secret: %v", err)
				}
				return
			}
			if err != nil || !test.check(c) {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}

// Without a host the health port is for this machine alone. A named address stays as it is.
func TestHealthAddr(t *testing.T) {
	for given, want := range map[string]string{
		"": "", ":8081": "127.0.0.1:8081", ":0": "127.0.0.1:0", "0.0.0.0:8081": "0.0.0.0:8081", "[::]:8081": "[::]:8081", "10.0.0.1:8081": "10.0.0.1:8081", "localhost:8081": "localhost:8081",
	} {
		t.Run(given, func(t *testing.T) {
			got, err := flotilla.Config{HealthAddr: given}.WithDefaults()
			if err != nil || got.HealthAddr != want {
				t.Errorf("%q, %v, want %q", got.HealthAddr, err, want)
			}
		})
	}
}

// Nothing that formats a Config prints its token, and all else is there.
func TestConfigPrintsNoToken(t *testing.T) {
	const token = "Planted890123456"
	cfg := flotilla.Config{Name: "n7", HealthToken: token, Secrets: []flotilla.Secret{flotilla.NewSecret()}}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "config", cfg)
	shown := map[string]string{"slog": logged.String(), "Sprint": fmt.Sprint(cfg), "a pointer": fmt.Sprintf("%+v", &cfg), "a slice": fmt.Sprintf("%#v", []flotilla.Config{cfg})}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		shown[verb] = fmt.Sprintf(verb, cfg)
	}
	for how, text := range shown {
		if strings.Contains(text, token[:8]) || !strings.Contains(text, "(set)") || !strings.Contains(text, "n7") || !strings.Contains(text, cfg.Secrets[0].String()) {
			t.Errorf("%s shows more, or less: %s", how, text)
		}
	}
	if got, err := cfg.WithDefaults(); err != nil || got.HealthToken != token {
		t.Errorf("the token itself: %q, %v", got.HealthToken, err)
	}
}

func TestSecret(t *testing.T) {
	s := flotilla.NewSecret()
	text := s.Encode()
	for _, form := range []string{text, strings.ToUpper(text), "  " + text + "\n"} {
		if got, err := flotilla.ParseSecret(form); err != nil || got != s {
			t.Errorf("%q is not read back: %v", form, err)
		}
	}
	for i := range len(text) {
		other := []byte(text)
		if other[i]++; other[i] == 'z'+1 || other[i] == '7'+1 {
			other[i] = 'a'
		}
		got, err := flotilla.ParseSecret(string(other))
		if err == nil {
			t.Errorf("a secret with character %d changed is accepted as %v", i, got)
		} else if strings.Contains(err.Error(), text[8:20]) {
			t.Errorf("the error shows the secret: %v", err)
		}
		want := "a secret begins with flt1_"
		if i >= len("flt1_") {
			want = "was it cut short?"
		}
		if _, err := flotilla.ParseSecret(text[:i]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a secret cut at %d: %v, want %q", i, err, want)
		}
	}
	asJSON, err := json.Marshal(struct{ S flotilla.Secret }{s})
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "secret", s, "config", flotilla.Config{Secrets: []flotilla.Secret{s}})
	for _, shown := range []string{
		fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x %X %d", s, s, s, s, s, s, s, s), fmt.Sprintf("%v", flotilla.Config{Secrets: []flotilla.Secret{s}}),
		string(asJSON), logged.String(),
	} {
		if strings.Contains(strings.ToLower(shown), text[8:16]) || !strings.Contains(shown, s.String()) {
			t.Errorf("%q shows more, or less, than the fingerprint", shown)
		}
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add(flotilla.NewSecret().Encode())
	f.Add("flt1_")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := flotilla.ParseSecret(text)
		if err != nil {
			return
		}
		if s.Encode() != strings.ToLower(strings.TrimSpace(text)) {
			t.Errorf("%q is read as %q", text, s.Encode())
		}
	})
}
