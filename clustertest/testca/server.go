package testca

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxBody   = 256 << 10 // of a request
	maxNonces = 10000     // that may be used; all are forgotten when there are more
)

// RoundTrip implements http.RoundTripper: the authority answers in memory.
func (a *Authority) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxBody)); err != nil {
			return nil, err
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if a.unreachable.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	status, header, text := a.respond(r.Method, r.URL.Host, r.URL.Path, body)
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)), Request: r,
	}, nil
}

// ServeHTTP implements http.Handler. The server must use TLS: clients sign the https URL of each
// request.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.unreachable.Load() {
		panic(http.ErrAbortHandler)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	status, header, text := a.respond(r.Method, r.Host, r.URL.Path, body)
	for k, v := range header {
		w.Header()[k] = v
	}
	w.WriteHeader(status)
	w.Write(text)
}

// respond answers a request.
func (a *Authority) respond(method, host, path string, body []byte) (int, http.Header, []byte) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	x := &exchange{method: method, base: "https://" + host, path: path, op: Operation(first), id: rest}
	ans := a.admit(x, body)
	header := http.Header{"Date": {a.Now().UTC().Format(http.TimeFormat)}, "Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}
	if x.op != Directory && x.op != RenewalInfo {
		header.Set("Replay-Nonce", a.nonce())
		header.Set("Link", "<"+x.base+"/"+string(Directory)+`>;rel="index"`)
	}
	for k, v := range ans.header {
		header[k] = v
	}
	switch b := ans.body.(type) {
	case nil:
		header.Del("Content-Type")
		return ans.status, header, nil
	case []byte:
		return ans.status, header, b
	}
	text, err := json.Marshal(ans.body)
	if err != nil {
		return http.StatusInternalServerError, header, []byte(err.Error())
	}
	return ans.status, header, text
}

// admit checks and answers a request.
func (a *Authority) admit(x *exchange, body []byte) *answer {
	allowed := methods(x.op)
	if allowed == nil {
		return problem(http.StatusNotFound, "malformed", "there is nothing at %s", x.path)
	}
	if !slices.Contains(allowed, x.method) {
		return problem(http.StatusMethodNotAllowed, "malformed", "%s is not allowed at %s", x.method, x.path)
	}
	if x.method == http.MethodPost {
		var err error
		if x.msg, err = decodeMessage(body); err != nil {
			return problem(http.StatusBadRequest, "malformed", "%v", err)
		}
	}
	placed, names := a.count(x)
	if r := a.refusal(Request{Op: x.op, Names: names}); r != nil {
		return r.answer()
	}
	if x.msg != nil {
		if ans := a.authenticate(x); ans != nil {
			return ans
		}
	}
	return a.dispatch(x, placed)
}

// count counts a request, and records it if it is an order.
func (a *Authority) count(x *exchange) (placed *Order, names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests[x.op]++
	if x.op != NewOrder {
		return nil, nil
	}
	var want orderRequest
	if decode(x.msg.payload, &want) == nil {
		for _, i := range want.Identifiers {
			names = append(names, i.Value)
		}
	}
	placed = &Order{At: time.Now(), Names: names, Account: x.msg.Kid, Replaces: want.Replaces, Refused: true}
	a.placed = append(a.placed, placed)
	return placed, names
}

// authenticate checks the nonce, the URL and the signature of a request.
func (a *Authority) authenticate(x *exchange) *answer {
	a.mu.Lock()
	fresh := a.nonces[x.msg.Nonce]
	delete(a.nonces, x.msg.Nonce)
	a.mu.Unlock()
	if !fresh {
		return problem(http.StatusBadRequest, "badNonce", "the nonce is not one that may be used")
	}
	if x.msg.URL != x.base+x.path {
		return problem(http.StatusUnauthorized, "unauthorized", "the signed URL is another one")
	}
	byKey := x.op == NewAccount || x.op == Revoke && x.msg.Kid == ""
	if byKey != (x.msg.Kid == "") {
		return problem(http.StatusBadRequest, "malformed", "the wrong one of kid and jwk is given")
	}
	if byKey {
		return nil // the operation checks the signature
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.accounts, func(who *account) bool { return x.base+"/"+string(UpdateAccount)+"/"+who.id == x.msg.Kid })
	if i < 0 {
		return problem(http.StatusBadRequest, "accountDoesNotExist", "there is no such account")
	}
	x.who = a.accounts[i]
	if x.who.closed {
		return problem(http.StatusUnauthorized, "unauthorized", "the account is deactivated")
	}
	return refuseSignature(x.who.key.verify(x.msg))
}

// refuseSignature returns the answer to a message whose verification returned err, nil if there is
// no error.
func refuseSignature(err error) *answer {
	switch err {
	case nil:
		return nil
	case errAlgorithm:
		return problem(http.StatusBadRequest, "badSignatureAlgorithm", "%v", err)
	}
	return problem(http.StatusBadRequest, "malformed", "%v", err)
}

func (a *Authority) dispatch(x *exchange, placed *Order) *answer {
	switch x.op {
	case Directory:
		return a.directory(x)
	case NewAccount:
		return a.newAccount(x)
	case UpdateAccount:
		return a.updateAccount(x)
	case KeyChange:
		return a.changeKey(x)
	case NewOrder:
		return a.newOrder(x, placed)
	case PollOrder:
		return a.pollOrder(x)
	case Authorize:
		return a.authorization(x)
	case Challenge:
		return a.challenge(x)
	case Finalize:
		return a.finalize(x)
	case Download:
		return a.download(x)
	case Revoke:
		return a.revokeFor(x)
	case RenewalInfo:
		return a.renewalInfo(x)
	}
	return &answer{status: http.StatusOK} // NewNonce: the nonce is in the header
}

func (a *Authority) directory(x *exchange) *answer {
	at := func(op Operation) string { return x.base + "/" + string(op) }
	return &answer{status: http.StatusOK, body: map[string]string{
		"newNonce": at(NewNonce), "newAccount": at(NewAccount), "newOrder": at(NewOrder),
		"keyChange": at(KeyChange), "revokeCert": at(Revoke), "renewalInfo": at(RenewalInfo),
	}}
}

// nonce returns a new nonce.
func (a *Authority) nonce() string {
	n := rand.Text()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.nonces) >= maxNonces {
		clear(a.nonces)
	}
	a.nonces[n] = true
	return n
}
