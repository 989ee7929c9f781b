package kv_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/kv"
)

// All nodes together let each user try to log in six times at once, and once in ten seconds after
// that. A cluster of one node allows half of Burst before it has asked the leader, which it is
// itself.
func ExampleStore_Limiter() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	node, err := flotilla.Open(ctx, flotilla.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Ready(ctx); err != nil {
		log.Fatal(err)
	}

	logins, err := node.KV("app").Limiter("logins", kv.Limit{Rate: 0.1, Burst: 6})
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		fmt.Println(logins.Allow("alice"))
	}
	fmt.Println(logins.AllowN("bob", 7)) // more than there will ever be
	// Output:
	// true
	// true
	// true
	// false
}
