package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	tlsEvery   = 200 * time.Millisecond
	steadyTime = 500 * time.Millisecond // without a failure ends an outage
	steadyMax  = 30 * time.Second
)

// record is what one address did since the last report.
type record struct {
	addr netip.Addr

	mu       sync.Mutex
	done     time.Time // all requests that began until then have ended
	good     time.Time // none has failed since then; zero: the last one has
	failing  time.Time // the first failure since the last success; zero: none
	outage   time.Duration
	asked    int
	failed   int
	owner    string
	checked  time.Time // the last success by HTTPS
	serials  map[string]bool
	distrust string // the error of the first untrusted certificate
}

// measure makes a request to each address of name at an interval, by plain HTTP on a new
// connection: that costs both sides little. Less often it makes a request by HTTPS, which shows the
// node and its certificate. It also asks the link who has the address. It reads commands from
// standard input:
//
//	steady   waits until all addresses have answered for a while, and prints "steady"; after half a
//	         minute it prints the addresses that have not
//	spread   also waits until another node answers at each IPv4 address
//	report   prints what was seen since the last report
func measure(ctx context.Context, name string, roots *x509.CertPool, every time.Duration) error {
	addrs, err := lookup(ctx, name)
	if err != nil {
		return err
	}
	wire, err := listenWire(addrs)
	if err != nil {
		return err
	}
	defer wire.close()
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	var records []*record
	for i, addr := range addrs {
		r := &record{addr: addr}
		r.clear()
		records = append(records, r)
		offset := every * time.Duration(i) / time.Duration(len(addrs))
		all.Go(func() { r.knock(ctx, offset, every) })
		all.Go(func() { r.check(ctx, name, roots) })
	}
	all.Go(func() { wire.ask(ctx) })

	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "steady":
			fmt.Println(awaitSteady(ctx, records, false))
		case "spread":
			fmt.Println(awaitSteady(ctx, records, true))
		case "report":
			fmt.Println(report(records, wire))
		default:
			return fmt.Errorf("there is no command %q", in.Text())
		}
	}
	return in.Err()
}

func (r *record) clear() {
	r.outage, r.asked, r.failed, r.distrust = 0, 0, 0, ""
	r.serials = make(map[string]bool)
}

// knock starts a request at each interval. It records their results in the order in which they
// began.
func (r *record) knock(ctx context.Context, offset, every time.Duration) {
	type result struct {
		began time.Time
		err   chan error
	}
	results := make(chan result, 2*measureTimeout/every)
	go func() {
		defer close(results)
		time.Sleep(offset)
		repeat(ctx, every, func() {
			one := result{time.Now(), make(chan error, 1)}
			go func() { one.err <- knock(r.addr) }()
			results <- one
		})
	}()
	for one := range results {
		err := <-one.err
		r.mu.Lock()
		r.done = one.began
		r.asked++
		switch {
		case err != nil:
			r.failed++
			r.good = time.Time{}
			if r.failing.IsZero() {
				r.failing = one.began
			}
		default:
			if !r.failing.IsZero() {
				r.outage = max(r.outage, one.began.Sub(r.failing))
				r.failing = time.Time{}
			}
			if r.good.IsZero() {
				r.good = one.began
			}
		}
		r.mu.Unlock()
	}
}

// knock makes a request by plain HTTP. Any answer will do.
func knock(addr netip.Addr) error {
	end := time.Now().Add(measureTimeout)
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(addr, 80).String(), measureTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(end)
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", addr); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "HTTP/1.1 ") {
		err = errors.New(line)
	}
	return err
}

// check makes requests by HTTPS.
func (r *record) check(ctx context.Context, name string, roots *x509.CertPool) {
	c, url := httpsAt(name, r.addr, roots, 2*measureTimeout)
	repeat(ctx, tlsEvery, func() {
		began := time.Now()
		a, err := ask(ctx, c, url)
		r.mu.Lock()
		if unknown := new(x509.UnknownAuthorityError); errors.As(err, unknown) {
			r.distrust = err.Error()
		}
		if err == nil {
			r.checked, r.owner = began, a.ServedBy
			r.serials[a.serial] = true
		}
		r.mu.Unlock()
	})
}

// awaitSteady waits until all addresses answer, and with spread another node at each.
func awaitSteady(ctx context.Context, records []*record, spread bool) string {
	start := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var bad []string
		owners := make(map[string]bool)
		v4 := 0
		for _, r := range records {
			r.mu.Lock()
			since := r.good
			if since.Before(start) {
				since = start
			}
			if r.good.IsZero() || r.done.Sub(since) < steadyTime || r.checked.Before(start) {
				bad = append(bad, r.addr.String())
			}
			if r.addr.Is4() {
				v4++
				owners[r.owner] = true
			}
			r.mu.Unlock()
		}
		if len(bad) == 0 && spread && len(owners) < v4 {
			bad = append(bad, fmt.Sprintf("answered by only %d nodes", len(owners)))
		}
		if len(bad) == 0 {
			return "steady"
		}
		if time.Since(start) > steadyMax || ctx.Err() != nil {
			return "not steady: " + strings.Join(bad, ", ")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// report returns figures as words key=value, and begins anew. They are the longest outage in
// milliseconds, of all and of each address, the most stations that had one address at a time, and
// the certificates.
func report(records []*record, w *wire) string {
	var worst time.Duration
	var each, owners []string
	serials := make(map[string]bool)
	asked, failed, distrust := 0, 0, 0
	for _, r := range records {
		r.mu.Lock()
		worst = max(worst, r.outage)
		each = append(each, fmt.Sprintf("%s:%d", strings.ReplaceAll(r.addr.String(), ":", "_"), r.outage.Milliseconds()))
		owners = append(owners, r.owner)
		maps.Copy(serials, r.serials)
		asked, failed = asked+r.asked, failed+r.failed
		if r.distrust != "" {
			distrust++
			fmt.Fprintf(os.Stderr, "%s: %s\n", r.addr, r.distrust)
		}
		r.clear()
		r.mu.Unlock()
	}
	questions, answers, most := w.report()
	return fmt.Sprintf("outage=%d each=%s owners=%s asked=%d failed=%d "+
		"questions=%d answers=%d stations=%d serials=%s distrust=%d",
		worst.Milliseconds(), strings.Join(each, ","), strings.Join(owners, ","), asked, failed, questions, answers, most,
		join(serials), distrust)
}
