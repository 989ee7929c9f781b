package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/kv"
)

// canary is something secret that was put where programs keep secrets.
type canary struct {
	where  string
	secret []byte
}

// canaries are all canaries of a run.
type canaries struct{ all []canary }

// add returns a new canary as text.
func (c *canaries) add(where string) string {
	text := fmt.Sprintf("Canary%02dx%s", len(c.all), strings.Repeat("q7Z", 9))
	c.all = append(c.all, canary{where, []byte(text)})
	return text
}

func (c *canaries) know(where string, secret []byte) { c.all = append(c.all, canary{where, secret}) }

// found returns the canaries that are in files.
func (c *canaries) found(files map[string]string) (found []string) {
	for name, content := range files {
		content = name + "\n" + content
		squeezed := regexp.MustCompile(`\s|\\n|\\r`).ReplaceAllString(content, "")
		for _, k := range c.all {
			for form, text := range forms(k.secret) {
				if strings.Contains(content, text) || strings.Contains(squeezed, text) {
					found = append(found, fmt.Sprintf("%s: %s, as %s", name, k.where, form))
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// forms are the ways in which programs write bytes.
func forms(secret []byte) map[string]string {
	return map[string]string{
		"bytes":      string(secret),
		"hex":        hex.EncodeToString(secret),
		"HEX":        strings.ToUpper(hex.EncodeToString(secret)),
		"base64":     base64.RawStdEncoding.EncodeToString(secret),
		"base64 URL": base64.RawURLEncoding.EncodeToString(secret),
		"upper case": strings.ToUpper(string(secret)),
		"lower case": strings.ToLower(string(secret)),
	}
}

// knowSecret makes canaries of a cluster's secret and of what is made from it. It returns the
// secret's bytes and its text form.
func (c *canaries) knowSecret(t *testing.T, cluster *clustertest.Cluster) (bytes []byte, text string) {
	t.Helper()
	text = cluster.Config(0).Secrets[0].Encode()
	raw, err := seal.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	seed := raw.CASeed()
	c.know("the cluster's secret", raw[:])
	c.know("the text form of the secret", []byte(text))
	c.know("the seed of the internal authority", seed[:])
	return raw[:], text
}

// knowKeys makes canaries of the private keys that a cluster has stored, and returns how many.
func (c *canaries) knowKeys(t *testing.T, n *flotilla.Node) (keys int) {
	t.Helper()
	for name, value := range stored(t, n) {
		if block, _ := pem.Decode([]byte(value)); block != nil && strings.HasSuffix(block.Type, "PRIVATE KEY") {
			c.know(name, block.Bytes)
			keys++
		}
	}
	return keys
}

// records returns records of every kind, with a canary in each.
func (c *canaries) records() map[string]string {
	all := make(map[string]string)
	pem := func(what string) string {
		return "-----BEGIN " + what + "-----\n" + base64.StdEncoding.EncodeToString([]byte(c.add("a record: "+what))) + "\n-----END " + what + "-----\n"
	}
	site := "certificates/" + issuer + "/canary.test/canary.test"
	all[site+".key"], all[site+".crt"], all[site+".json"] = pem("PRIVATE KEY"), pem("CERTIFICATE"), `{"sans":["canary.test"],"x":"`+c.add("metadata of a certificate")+`"}`
	user := "acme/" + issuer + "/users/a@canary.test/a"
	all[user+".key"], all[user+".json"] = pem("EC PRIVATE KEY"), `{"status":"valid","externalAccountBinding":"`+c.add("an account's EAB")+`"}`
	for _, key := range []string{
		"acme/" + issuer + "/challenge_tokens/canary.test.json", "ocsp/canary.test-1", "dns_credentials/cloud", "last_clean.json",
		"session_tickets/key", "plain", "deep/er/and/deeper/still", "app/token", "app/password", "app/cookie",
	} {
		all[key] = c.add("the record " + key)
	}
	for _, where := range []string{"hex", "base64", "json"} {
		value := c.add("a record in " + where)
		all["encoded/"+where] = map[string]string{
			"hex": hex.EncodeToString([]byte(value)), "base64": base64.StdEncoding.EncodeToString([]byte(value)), "json": `{"v":"` + value + `"}`,
		}[where]
	}
	for i := range 4 {
		all["named/"+c.add("the name of a record")+fmt.Sprint(i)] = "1"
	}
	return all
}

// provider stands for a provider of DNS, with the credential that programs give to theirs.
type provider struct {
	*testca.Zone
	APIToken string
}

const openMetrics = "application/openmetrics-text; version=1.0.0"

// shown returns all that a cluster shows, by the name of what shows it: its health ports, its
// events, the command of an operator.
func shown(t *testing.T, cluster *clustertest.Cluster, token string, o *operator) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for i, n := range cluster.Nodes {
		ask := func(path string, code int, change func(*http.Request)) {
			// Updates do not end by themselves.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			r, w := httptest.NewRequestWithContext(ctx, "GET", path, nil), httptest.NewRecorder()
			change(r)
			n.Health().ServeHTTP(w, r)
			if w.Code != code {
				t.Errorf("%s of n%d: status %d, want %d", path, i, w.Code, code)
			}
			name := fmt.Sprintf("n%d: %d %s %s", i, code, path, r.Header.Get("Accept"))
			all[name] = fmt.Sprint(w.Result().Header, "\n", w.Body)
		}
		in := func(r *http.Request) { r.SetBasicAuth("me", token) }
		for _, path := range []string{"/", "/page/updates", "/status", "/metrics"} {
			ask(path, 200, in)
			ask(path, 401, func(*http.Request) {})
		}
		ask("/metrics", 200, func(r *http.Request) {
			in(r)
			r.Header.Set("Accept", openMetrics)
		})
		ask("/livez", 200, func(*http.Request) {})
		ask("/readyz", 200, func(*http.Request) {})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // new ones may come for ever
		var events strings.Builder
		for e := range n.Events(ctx) {
			fmt.Fprintf(&events, "%+v\n", e)
			if err := json.NewEncoder(&events).Encode(e); err != nil {
				t.Error(err)
			}
		}
		cancel()
		all[fmt.Sprintf("n%d: Events", i)] = events.String()
	}
	for _, args := range []string{"status", "status -json", "events", "events -json", "members", "roles", "health", "debug -out -"} {
		got := o.run(t.Context(), strings.Fields(args)...)
		name := "flotilla " + args
		all[name+" stderr"] = got.errOut
		if args != "debug -out -" {
			all[name] = got.out
			continue
		}
		got.want(t, 0)
		for file, content := range contents(t, []byte(got.out)) {
			_, file, _ = strings.Cut(file, "/") // without the name of the archive
			all["flotilla debug: "+file] = content
		}
	}
	return all
}

// TestShowsNoSecrets plants canaries wherever a running cluster has secrets. What nodes show on
// their health ports, in events, in logs and to an operator has none of them. A canary that is no
// secret, in the name of a role, is found in all these places, so the search looks at what counts.
func TestShowsNoSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	c := new(canaries)
	zone := provider{new(testca.Zone), c.add("credential of a DNS provider")}
	ca := testca.New(t, testca.Config{TXT: zone.TXT, Challenges: []string{testca.DNS01}})
	token, email := c.add("health token"), c.add("e-mail address")+"@served.test"
	synctest.Test(t, func(t *testing.T) {
		log := new(testlog.Buffer)
		cluster := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) {
			cfg.HealthToken, cfg.TLS.Email = token, email
			cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			cfg.TLS.Configure = func(m *certmagic.Config, i *certmagic.ACMEIssuer) {
				ca.Configure(m, i)
				i.DNS01Solver = zone
			}
		})
		cluster.Serve(func(int, *flotilla.Node) http.Handler { return http.NotFoundHandler() }, "served.test")
		cluster.Settle()
		node := cluster.Nodes[0]
		for key, value := range c.records() {
			if err := node.Storage().Store(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := node.KV("sessions").Put(t.Context(), c.add("the key of an entry"), []byte(c.add("the value of an entry")), kv.Options{}); err != nil {
			t.Fatal(err)
		}
		const role = "shown-role"
		control := new(canaries)
		control.know("the name of a role", []byte(role))
		held := make(chan struct{})
		go node.Hold(t.Context(), flotilla.Role{Name: role}, func(ctx context.Context, _ flotilla.Tenure) error {
			close(held)
			<-ctx.Done()
			return nil
		})
		<-held
		time.Sleep(time.Minute) // for the certificate, and for what nodes log about the records
		if ca.Issued("served.test") == nil {
			t.Fatal("there is no certificate")
		}
		c.knowSecret(t, cluster)
		if keys := c.knowKeys(t, node); keys < 4 { // two are of records
			t.Errorf("the cluster has %d private keys", keys)
		}
		o := operatorOf(cluster)
		env := environment(cluster, cluster.Config(0).Secrets[0].Encode())
		env["FLOTILLA_HEALTH_TOKEN"], env["FLOTILLA_EMAIL"] = token, email
		o.getenv = func(name string) string { return env[name] }
		all := shown(t, cluster, token, o)
		all["log"] = log.String()
		for _, text := range c.found(all) {
			if strings.HasPrefix(text, "log: e-mail address") || strings.HasPrefix(text, "log: the name of a record") {
				continue // both are in a log, which is the owner's, and in no archive
			}
			t.Errorf("found in %s", text)
		}
		for _, name := range []string{
			"n0: 200 / ", "n0: 200 /page/updates ", "n0: 200 /status ", "n0: 200 /metrics ", "n0: 200 /metrics " + openMetrics, "n0: Events", "log",
			"flotilla status", "flotilla status -json", "flotilla events", "flotilla events -json", "flotilla roles", "flotilla debug: status.txt",
		} {
			if control.found(map[string]string{name: all[name]}) == nil {
				t.Errorf("%s does not show the role, so the search proves nothing:\n%.2000s", name, all[name])
			}
		}
	})
}
