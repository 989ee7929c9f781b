package bench

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// newEtcd starts three members of etcd. It returns two functions that put a value, each through its
// own client: one client is connected only to a follower, the other only to the leader.
func newEtcd(b *testing.B) (follower, leader store) {
	b.Helper()
	first, followers := newEtcdClients(b)
	put := func(client *clientv3.Client) store {
		return func(ctx context.Context, key string, value []byte) error {
			_, err := client.Put(ctx, key, string(value))
			return err
		}
	}
	return put(followers[0]), put(first)
}

// newEtcdClients starts three members of etcd with default options (fsync, no TLS). It returns a
// client for each: one is connected only to the leader, the others to a follower each.
func newEtcdClients(b *testing.B) (leader *clientv3.Client, followers []*clientv3.Client) {
	b.Helper()
	addrs, dir := freeAddrs(b, 6), b.TempDir()
	at := func(i int) url.URL { return url.URL{Scheme: "http", Host: addrs[i]} }
	var initial []string
	for i := range 3 {
		u := at(i)
		initial = append(initial, fmt.Sprintf("m%d=%s", i, u.String()))
	}
	var all []*embed.Etcd
	for i := range 3 {
		c := embed.NewConfig()
		c.Name, c.Dir = fmt.Sprintf("m%d", i), filepath.Join(dir, fmt.Sprint(i))
		c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{at(i)}, []url.URL{at(i)}
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{at(3 + i)}, []url.URL{at(3 + i)}
		c.InitialCluster = strings.Join(initial, ",")
		c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		e, err := embed.StartEtcd(c)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(e.Close)
		all = append(all, e)
	}
	for i, e := range all {
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(readyTimeout):
			b.Fatalf("member %d of etcd is not ready", i)
		}
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + addrs[3+i]}, Logger: zap.NewNop(), DialTimeout: readyTimeout})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { client.Close() })
		if e.Server.Leader() == e.Server.MemberID() {
			leader = client
		} else {
			followers = append(followers, client)
		}
	}
	if leader == nil || len(followers) != 2 {
		b.Fatal("etcd has no leader, or more than one")
	}
	return leader, followers
}
