package flotilla

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/healthauth"
)

// ConfigFromEnv reads a Config from the environment. Fields without a variable stay zero.
//
//	FLOTILLA_DIR, _NAME, _ADDR, _ADVERTISE, _ZONE   as the fields
//	FLOTILLA_SECRETS        one or more secrets, separated by space or commas
//	FLOTILLA_PEERS          "a:7373,b:7373", "dns:app:7373" or "srv:_flotilla._tcp.example.com"
//	FLOTILLA_EXPECT         a number
//	FLOTILLA_TIMING         lan, fast, wan or turbo
//	FLOTILLA_GUARD          true or false
//	FLOTILLA_MAX_STATE      bytes
//	FLOTILLA_REMOVE_DEAD    a duration such as 48h, or never
//	FLOTILLA_BACKUPS        "/backups" or "/backups,every=24h,keep=14": Backups.Dir, Every and Keep
//	FLOTILLA_EMAIL, _ACME_CA                 TLS.Email, TLS.CA
//	FLOTILLA_ACME_ROOTS     file with PEM certificates: TLS.TrustedRoots
//	FLOTILLA_PROXIES        prefixes or addresses, separated by space or commas
//	FLOTILLA_HTTPS_ADDR, _HTTP_ADDR, _HEALTH_ADDR   as the fields
//	FLOTILLA_HEALTH_TOKEN   HealthToken
//	FLOTILLA_LOG            debug, info, warn or error, then perhaps ",json": Logger, which writes
//	                        records of this level and above to the standard error
//
// FLOTILLA_SECRETS_FILE names a file that holds the secrets, instead of FLOTILLA_SECRETS, and
// FLOTILLA_HEALTH_TOKEN_FILE one that holds the token. An error is a *ConfigError that names the
// variable. It never repeats a secret or the token.
//
// Any other variable that begins with FLOTILLA_ is an error too, so that a misspelt one is noticed.
// Exceptions are the variables that Kubernetes sets for a service whose name begins so, and those
// that begin with FLOTILLA_TEST_, which are for tests.
func ConfigFromEnv() (Config, error) {
	if err := unknownVariables(os.Environ()); err != nil {
		return Config{}, err
	}
	c := Config{
		Dir:        os.Getenv("FLOTILLA_DIR"),
		Name:       os.Getenv("FLOTILLA_NAME"),
		Addr:       os.Getenv("FLOTILLA_ADDR"),
		Advertise:  os.Getenv("FLOTILLA_ADVERTISE"),
		Zone:       os.Getenv("FLOTILLA_ZONE"),
		HTTPSAddr:  os.Getenv("FLOTILLA_HTTPS_ADDR"),
		HTTPAddr:   os.Getenv("FLOTILLA_HTTP_ADDR"),
		HealthAddr: os.Getenv("FLOTILLA_HEALTH_ADDR"),
		TLS:        TLS{Email: os.Getenv("FLOTILLA_EMAIL"), CA: os.Getenv("FLOTILLA_ACME_CA")},
	}
	for _, read := range []func(*Config) error{envSecrets, envHealthToken, envPeers, envNumbers, envTiming, envGuard, envRoots, envProxies, envBackups, envLog} {
		if err := read(&c); err != nil {
			return Config{}, err
		}
	}
	return c, nil
}

// tildeHint returns a remedy for a file name that a shell would have expanded.
func tildeHint(file string) string {
	if strings.HasPrefix(file, "~") || strings.HasPrefix(file, "$") {
		return "; write its path in full, only shells replace ~ and variables"
	}
	return ""
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

// envSecret returns what a variable holds, or else the file that the variable with _FILE behind its
// name does, and which of the two variables it was. No error repeats the text.
func envSecret(field, variable string) (text, from string, err error) {
	text, fileVariable := os.Getenv(variable), variable+"_FILE"
	file := os.Getenv(fileVariable)
	if file == "" {
		return text, variable, nil
	}
	if text != "" {
		return "", "", envError(field, variable, "and "+fileVariable+" are both set; unset one", nil)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", "", envError(field, fileVariable, "names a file that cannot be read"+tildeHint(file), err)
	}
	if text = string(b); len(words(text)) == 0 {
		return "", "", envError(field, fileVariable, "names an empty file, "+file, nil)
	}
	return text, fileVariable, nil
}

func envSecrets(c *Config) error {
	text, from, err := envSecret("Secrets", "FLOTILLA_SECRETS")
	if err != nil {
		return err
	}
	for i, w := range words(text) {
		s, err := ParseSecret(w)
		if err != nil {
			return envError("Secrets", from, fmt.Sprintf("holds no valid secret in place %d", i+1), err)
		}
		c.Secrets = append(c.Secrets, s)
	}
	c.SecretsFile = os.Getenv("FLOTILLA_SECRETS_FILE")
	return nil
}

func envHealthToken(c *Config) error {
	text, from, err := envSecret("HealthToken", "FLOTILLA_HEALTH_TOKEN")
	if err != nil || text == "" {
		return err
	}
	token := strings.TrimSpace(text) // a file ends in a line end
	if err := healthauth.Check(token); err != nil {
		return envError("HealthToken", from, "holds no token that can be used", err)
	}
	c.HealthToken = token
	return nil
}

func envPeers(c *Config) error {
	text := strings.TrimSpace(os.Getenv("FLOTILLA_PEERS"))
	if name, ok := strings.CutPrefix(text, "srv:"); ok {
		if name == "" {
			return envError("Peers", "FLOTILLA_PEERS", `has no name after "srv:"`, nil)
		}
		c.Peers = SRV(name)
		return nil
	}
	if hostport, ok := strings.CutPrefix(text, "dns:"); ok {
		if err := checkPeer(hostport); err != nil {
			return envError("Peers", "FLOTILLA_PEERS", `must have host:port after "dns:"`, err)
		}
		c.Peers = DNS(hostport)
		return nil
	}
	addrs := words(text)
	for _, a := range addrs {
		if err := checkPeer(a); err != nil {
			return envError("Peers", "FLOTILLA_PEERS", "must list addresses as host:port", err)
		}
	}
	if len(addrs) > 0 {
		c.Peers = Static(addrs...)
	}
	return nil
}

func envNumbers(c *Config) error {
	if v := os.Getenv("FLOTILLA_EXPECT"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			return envError("Expect", "FLOTILLA_EXPECT", "must be a number", err)
		}
		c.Expect = n
	}
	for name, field := range map[string]*int64{"MAX_STATE": &c.MaxState, "MAX_RECORDS": &c.MaxRecords} {
		v := os.Getenv(envPrefix + name)
		if v == "" {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return envError(envNames()[name], envPrefix+name, "must be a number of bytes", err)
		}
		*field = n
	}
	if v := os.Getenv("FLOTILLA_REMOVE_DEAD"); v == "never" {
		c.RemoveDead = -1
	} else if v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return envError("RemoveDead", "FLOTILLA_REMOVE_DEAD", `must be a duration such as 48h, or "never"`, err)
		}
		c.RemoveDead = d
	}
	return nil
}

func envTiming(c *Config) error {
	switch v := os.Getenv("FLOTILLA_TIMING"); v {
	case "", "lan":
		c.Timing = LAN
	case "fast":
		c.Timing = Fast
	case "wan":
		c.Timing = WAN
	case "turbo":
		c.Timing = Turbo
	default:
		return envError("Timing", "FLOTILLA_TIMING", fmt.Sprintf("must be lan, fast, wan or turbo, not %q", v), nil)
	}
	return nil
}

func envGuard(c *Config) error {
	v := os.Getenv("FLOTILLA_GUARD")
	if v == "" {
		return nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return envError("Guard", "FLOTILLA_GUARD", fmt.Sprintf("must be true or false, not %q", v), nil)
	}
	c.Guard = on
	return nil
}

func envRoots(c *Config) error {
	file := os.Getenv("FLOTILLA_ACME_ROOTS")
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return envError("TLS.TrustedRoots", "FLOTILLA_ACME_ROOTS", "names a file that cannot be read"+tildeHint(file), err)
	}
	c.TLS.TrustedRoots = x509.NewCertPool()
	if !c.TLS.TrustedRoots.AppendCertsFromPEM(pem) {
		return envError("TLS.TrustedRoots", "FLOTILLA_ACME_ROOTS", "names a file without a PEM certificate, "+file, nil)
	}
	return nil
}

func envBackups(c *Config) error {
	const variable = "FLOTILLA_BACKUPS"
	dir, options, _ := strings.Cut(os.Getenv(variable), ",")
	c.Backups.Dir = strings.TrimSpace(dir)
	if c.Backups.Dir == "" && options != "" {
		return envError("Backups.Dir", variable, "has no directory before the first comma", nil)
	}
	for _, o := range words(options) {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "every":
			d, err := time.ParseDuration(value)
			if err != nil || d <= 0 {
				return envError("Backups.Every", variable, "must have a duration such as 24h after every=", err)
			}
			c.Backups.Every = d
		case "keep":
			n, err := strconv.Atoi(value)
			if err != nil || n <= 0 {
				return envError("Backups.Keep", variable, "must have a number above 0 after keep=", err)
			}
			c.Backups.Keep = n
		default:
			return envError("Backups", variable, fmt.Sprintf("has %q, and only every= and keep= are known", o), nil)
		}
	}
	return nil
}

func envLog(c *Config) error {
	v := os.Getenv("FLOTILLA_LOG")
	if v == "" {
		return nil
	}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	name, form, _ := strings.Cut(v, ",")
	level, ok := levels[name]
	options := &slog.HandlerOptions{Level: level}
	switch {
	case !ok:
	case form == "json":
		c.Logger = slog.New(slog.NewJSONHandler(os.Stderr, options))
		return nil
	case name == v:
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, options))
		return nil
	}
	return envError("Logger", "FLOTILLA_LOG", fmt.Sprintf(`must be debug, info, warn or error, with ",json" behind it for JSON, not %q`, v), nil)
}

func envProxies(c *Config) error {
	for _, w := range words(os.Getenv("FLOTILLA_PROXIES")) {
		p, err := netip.ParsePrefix(w)
		if err != nil {
			a, err := netip.ParseAddr(w)
			if err != nil {
				return envError("Proxies", "FLOTILLA_PROXIES", fmt.Sprintf("must list addresses or prefixes, and %q is neither", w), nil)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		c.Proxies = append(c.Proxies, p)
	}
	return nil
}
