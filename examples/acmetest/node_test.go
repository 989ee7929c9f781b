package acmetest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// settings is what a node needs to know. Questions and answers follow as lines.
type settings struct {
	Name, Dir, Secret string
	Addr, HTTPS, HTTP string
	Peers             []string
	Domains           []string
	CA, Roots         string // URL of the ACME directory, and PEM of the certificate that it shows
	TestCA            string // URL of another, which the node must not use
	Challenge         string // the only kind; empty: any but DNS-01
	PerNode           bool   // each node has its own certificates
	DNS               string // the name server that accepts answers to DNS-01
}

// The questions.
const (
	askAdd      = "add"      // manage the certificate of Name; the answer comes when there is one
	askState    = "state"    // what the node knows of Name, without waiting
	askRenew    = "renew"    // renew the certificate of Name, due or not
	askMaintain = "maintain" // look for due certificates once, as certmagic does every ten minutes
	askForget   = "forget"   // delete Name from storage
	askBundle   = "bundle"   // the certificate of Name in storage, checked
	askTokens   = "tokens"   // count how often this process stored and loaded the token for Name
	askArm      = "arm"      // die at call N of the storage for Name or for no name; 0: never
)

type question struct {
	ID   int
	Ask  string
	Name string `json:",omitempty"`
	N    int    `json:",omitempty"`
}

type answer struct {
	ID             int    // of the question; 0: this is no answer
	Err            string `json:",omitempty"`
	Dying          bool   `json:",omitempty"` // before storage call N, which is Op of Key
	N              int    `json:",omitempty"` // calls counted since the node was armed
	Op, Key        string `json:",omitempty"`
	Serial         string `json:",omitempty"` // of the certificate in storage, hexadecimal
	Stores, Loads  int    `json:",omitempty"` // of the token
	State          string `json:",omitempty"` // why there is no certificate
	HasCertificate bool   `json:",omitempty"`
}

// worker is the node in its process.
type worker struct {
	settings settings
	node     *flotilla.Node
	config   *certmagic.Config
	recorder *recorder

	mu  sync.Mutex // guards out
	out *json.Encoder
}

// nodeMain is main in the process of a node. It ends with the test: when its input ends.
func nodeMain() int {
	signal.Ignore(os.Interrupt) // it reaches all processes of the terminal: the test decides
	w := &worker{out: json.NewEncoder(os.Stdout)}
	in, err := process.ReadSettings(&w.settings)
	if err == nil {
		err = w.serve(in)
	}
	fmt.Fprintln(os.Stderr, "the node has ended:", err)
	return 1
}

// serve runs the node until something fails.
func (w *worker) serve(in *bufio.Reader) error {
	ctx := context.Background()
	secret, err := flotilla.ParseSecret(w.settings.Secret)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(w.settings.Roots)) {
		return errors.New("the certificate of the ACME server is not PEM")
	}
	w.recorder = newRecorder(w.die)
	w.node, err = flotilla.Open(ctx, flotilla.Config{
		Dir:       w.settings.Dir,
		Name:      w.settings.Name,
		Addr:      w.settings.Addr,
		Secrets:   []flotilla.Secret{secret},
		Peers:     flotilla.Static(w.settings.Peers...),
		Expect:    len(w.settings.Peers),
		HTTPSAddr: w.settings.HTTPS,
		HTTPAddr:  w.settings.HTTP,
		Logger:    slog.New(w.recorder.handler(slog.NewTextHandler(os.Stderr, nil))),
		TLS: flotilla.TLS{
			Email: email, CA: w.settings.CA, TrustedRoots: roots, PerNode: w.settings.PerNode,
			Configure: func(c *certmagic.Config, i *certmagic.ACMEIssuer) {
				w.config = c
				i.DisableHTTPChallenge = w.settings.Challenge == tlsALPN
				i.DisableTLSALPNChallenge = w.settings.Challenge == http01
				i.TestCA = w.settings.TestCA
				if w.settings.Challenge == dns01 {
					i.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
						DNSProvider: provider{w.settings.DNS}, Resolvers: []string{w.settings.DNS},
					}}
				}
			},
		},
	})
	if err != nil {
		return err
	}
	go w.answerAll(ctx, in)
	if err := w.node.Ready(ctx); err != nil {
		return err
	}
	hello := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, w.settings.Name) })
	return w.node.Serve(ctx, hello, w.settings.Domains...)
}

// die kills the process, as a power cut at a storage call would. Only the disk keeps what it has
// not written yet.
func (w *worker) die(n int, op, key string) {
	w.say(answer{Dying: true, N: n, Op: op, Key: key})
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the node cannot kill itself:", err)
		os.Exit(1)
	}
	select {} // the storage call is not made
}

func (w *worker) say(a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out.Encode(a) != nil {
		os.Exit(1)
	}
}

// answerAll answers each question in a goroutine of its own.
func (w *worker) answerAll(ctx context.Context, in *bufio.Reader) {
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			os.Exit(1) // the test is gone
		}
		go func() {
			var q question
			var a answer
			err := json.Unmarshal(line, &q)
			if err == nil {
				a, err = w.answer(ctx, q)
			}
			a.ID = q.ID
			if err != nil {
				a.Err = err.Error()
			}
			w.say(a)
		}()
	}
}

func (w *worker) answer(ctx context.Context, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	switch q.Ask {
	case askAdd:
		if _, err := w.node.TLSConfig(q.Name); err != nil {
			return answer{}, err
		}
		return answer{}, process.Await(ctx, waitLimit, func(context.Context) error {
			if c := w.state(q.Name); c.Serial == "" || c.Err != "" {
				return fmt.Errorf("no certificate for %s: %s", q.Name, c.Err)
			}
			return nil
		})
	case askState:
		c := w.state(q.Name)
		return answer{State: c.Err, HasCertificate: c.Serial != ""}, nil
	case askRenew:
		return answer{}, w.config.RenewCertSync(ctx, q.Name, true)
	case askMaintain:
		// Its jobs go on afterwards.
		return answer{}, w.cache().RenewManagedCertificates(context.WithoutCancel(ctx))
	case askForget:
		return answer{}, w.node.Storage().Delete(ctx, q.Name)
	case askBundle:
		return w.bundle(ctx, q.Name)
	case askTokens:
		stores, loads := w.recorder.tokens(q.Name)
		return answer{Stores: stores, Loads: loads}, nil
	case askArm:
		return answer{N: w.recorder.arm(q.N, q.Name)}, nil
	}
	return answer{}, fmt.Errorf("%q is not a question", q.Ask)
}

// state returns the status of the certificate for a name.
func (w *worker) state(name string) flotilla.Certificate {
	for _, c := range w.node.Status().Certificates {
		if c.Name == name {
			return c
		}
	}
	return flotilla.Certificate{Err: "not managed"}
}

// cache returns certmagic's cache. A test calls its maintenance, instead of waiting ten minutes for
// it. certmagic exports no way to it.
func (w *worker) cache() *certmagic.Cache {
	return (*certmagic.Cache)(reflect.ValueOf(w.config).Elem().FieldByName("certCache").UnsafePointer())
}

// bundle reads the three records of a certificate, and checks that they belong together.
func (w *worker) bundle(ctx context.Context, name string) (answer, error) {
	issuer, key := w.config.Issuers[0].IssuerKey(), new(certmagic.KeyBuilder)
	var records [3][]byte
	for i, k := range []string{key.SiteCert(issuer, name), key.SitePrivateKey(issuer, name), key.SiteMeta(issuer, name)} {
		var err error
		if records[i], err = w.node.Storage().Load(ctx, k); err != nil {
			return answer{}, err
		}
	}
	pair, err := tls.X509KeyPair(records[0], records[1])
	if err != nil {
		return answer{}, fmt.Errorf("certificate and key of %s in storage: %w", name, err)
	}
	if err := pair.Leaf.VerifyHostname(name); err != nil {
		return answer{}, err
	}
	var meta certmagic.CertificateResource
	if err := json.Unmarshal(records[2], &meta); err != nil {
		return answer{}, fmt.Errorf("metadata of %s in storage: %w", name, err)
	}
	var issued acme.Certificate
	if err := json.Unmarshal(meta.IssuerData, &issued); err != nil {
		return answer{}, fmt.Errorf("metadata of %s in storage: %w", name, err)
	}
	id, err := acme.ARIUniqueIdentifier(pair.Leaf)
	if err != nil {
		return answer{}, err
	}
	if issued.RenewalInfo == nil || issued.RenewalInfo.UniqueIdentifier != id {
		return answer{}, fmt.Errorf("metadata of %s in storage belongs to another certificate", name)
	}
	return answer{Serial: pair.Leaf.SerialNumber.Text(16)}, nil
}

// tokenOf returns true if key is that of the token of a challenge for name.
func tokenOf(key, name string) bool {
	return strings.Contains(key, "/challenge_tokens/") && strings.HasSuffix(key, "/"+name+".json")
}
