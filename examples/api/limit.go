package main

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/kv"
)

// limited returns a handler that serves a client so many requests in a second, at all instances
// together. Within two seconds' worth it may send them at once. An empty rate is no limit.
func limited(node *flotilla.Node, next http.Handler, rate string) (http.Handler, error) {
	if rate == "" {
		return next, nil
	}
	perSecond, err := strconv.ParseFloat(rate, 64)
	if err != nil {
		return nil, fmt.Errorf("API_RATE: %q is not a number", rate)
	}
	limiter, err := node.KV("api").Limiter("requests", kv.Limit{Rate: perSecond, Burst: int(max(1, math.Ceil(min(2*perSecond, 1e9))))})
	if err != nil {
		return nil, fmt.Errorf("API_RATE: %w", err)
	}
	wait := strconv.Itoa(int(max(1, math.Ceil(min(1/perSecond, 3600)))))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !limiter.Allow(clientOf(r.RemoteAddr)) {
			w.Header().Set("Retry-After", wait)
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	}), nil
}

// clientOf returns what is counted as one client: an IPv4 address, or a network of IPv6 with 64
// bits, of which a client has all addresses.
func clientOf(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := at.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}
