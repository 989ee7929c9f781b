//go:build unix

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	workers     = 2
	workerPause = 50 * time.Millisecond // between two requests of a worker
	tryTime     = 15 * time.Second      // for one node to answer; a machine may be busy
	requestTime = time.Minute           // for any node to answer
	roundPause  = 200 * time.Millisecond
)

// load is clients that write and read records until it is stopped.
type load struct {
	stop func() // returns when they have ended
}

// startLoad starts clients of the nodes at the given addresses.
func startLoad(ctx context.Context, domain string, addrs []string, r *report) *load {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for i := range workers {
		w := &worker{name: fmt.Sprintf("w%d", i), domain: domain, first: i, report: r}
		for _, addr := range addrs {
			w.nodes = append(w.nodes, clientOf(addr, domain))
		}
		all.Go(func() { w.run(ctx) })
	}
	return &load{stop: func() {
		cancel()
		all.Wait()
	}}
}

// clientOf returns a client that reaches one node. The certificates are those of the cluster's own
// authority, and not what is tried here.
func clientOf(addr, domain string) *http.Client {
	return &http.Client{Timeout: tryTime, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		TLSClientConfig: &tls.Config{ServerName: domain, InsecureSkipVerify: true},
	}}
}

// worker writes a record, and reads it on the next node.
type worker struct {
	name, domain string
	nodes        []*http.Client
	first        int // the node that the next request goes to first
	report       *report
}

// run writes and reads until ctx ends. A write that one node may have carried out late gets another
// key for the next one, so what is read is what was written last.
func (w *worker) run(ctx context.Context) {
	for n, key := 0, 0; pause(ctx, workerPause); n++ {
		name, value := fmt.Sprintf("%s-%d", w.name, key), fmt.Sprintf("value %d", n)
		_, tries, err := w.ask(ctx, http.MethodPut, name, value)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.report.fail("writing %s: %v", name, err)
			key++
			continue
		}
		got, _, err := w.ask(ctx, http.MethodGet, name, "")
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.report.fail("reading %s: %v", name, err)
		case got != value:
			w.report.fail("%s is %q after %q was written", name, got, value)
		}
		if tries > 1 {
			key++
		}
	}
}

// ask asks one node after another until one answers. It returns how many it has asked.
func (w *worker) ask(ctx context.Context, method, key, value string) (answer string, tries int, err error) {
	began := time.Now()
	w.first++
	var faults []error
	for tries = 1; ; tries++ {
		answer, err := w.try(ctx, w.nodes[(w.first+tries)%len(w.nodes)], method, key, value)
		if err == nil {
			w.report.answered(time.Since(began), tries)
			return answer, tries, nil
		}
		faults = append(faults[max(0, len(faults)-len(w.nodes)+1):], err)
		if ctx.Err() != nil || time.Since(began) > requestTime {
			return "", tries, errors.Join(faults...)
		}
		if tries%len(w.nodes) == 0 {
			pause(ctx, roundPause)
		}
	}
}

// try asks one node.
func (w *worker) try(ctx context.Context, client *http.Client, method, key, value string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+w.domain+"/records/"+key, strings.NewReader(value))
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusNotFound {
		return "", nil // a ready node says that there is no such record: no other node makes up for it
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}
