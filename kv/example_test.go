package kv_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/kv"
)

// open returns a node that is a cluster of its own, in memory. Each node of a real cluster gets its
// configuration from flotilla.ConfigFromEnv.
func open(ctx context.Context) *flotilla.Node {
	node, err := flotilla.Open(ctx, flotilla.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	if err := node.Ready(ctx); err != nil {
		log.Fatal(err)
	}
	return node
}

// Feature flags: an operator turns one on, and every node asks its own memory with each request.
func Example_featureFlags() {
	ctx := context.Background()
	node := open(ctx)
	defer node.Close()

	type flag struct{ Percent int } // of the users
	flags := kv.Typed[flag](node.KV("flags"))
	// A flag that nobody has set is off. So is one that this node cannot know yet.
	enabled := func(name string, user int) bool {
		f, err := flags.Get(ctx, name)
		return err == nil && user%100 < f.Value.Percent
	}

	fmt.Println(enabled("new checkout", 7))
	if _, err := flags.Put(ctx, "new checkout", flag{Percent: 10}, kv.Options{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(enabled("new checkout", 7), enabled("new checkout", 42))
	// Output:
	// false
	// true false
}

// Sessions of users: any node knows them, and one that is not used for half an hour ends by itself.
func Example_userSessions() {
	ctx := context.Background()
	node := open(ctx)
	defer node.Close()

	type session struct{ User string }
	store := node.KV("sessions")
	sessions := kv.Typed[session](store)
	idle := kv.Options{TTL: 30 * time.Minute}
	// A program makes a random token with crypto/rand.Text, and puts it in a cookie.
	if _, err := sessions.Put(ctx, "token-of-ann", session{User: "ann"}, idle); err != nil {
		log.Fatal(err)
	}

	// With each request:
	request := func(token string) string {
		s, err := sessions.Get(ctx, token)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "sign in, please"
		case err != nil:
			return "try again in a moment" // this node has no cluster just now
		}
		// A refresh is a write. So it is left out while most of the time remains.
		if time.Until(s.Expires) < 20*time.Minute {
			if err := store.Refresh(ctx, token); err != nil {
				log.Print(err) // the session is good for a while yet
			}
		}
		return "hello, " + s.Value.User
	}
	fmt.Println(request("token-of-ann"))

	// She signs out. From now on no node accepts her token.
	if err := sessions.Delete(ctx, "token-of-ann"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(request("token-of-ann"))
	// Output:
	// hello, ann
	// sign in, please
}

// Who is present: each node says what it does. Its entry goes with it, however it ends.
func Example_presence() {
	ctx := context.Background()
	node := open(ctx)
	defer node.Close()

	present := node.KV("present")
	for _, s := range []string{"web", "mail"} {
		key := s + "/" + node.Status().ID
		if _, err := present.Put(ctx, key, []byte("10.0.0.1"), kv.Options{Session: true}); err != nil {
			log.Fatal(err)
		}
	}

	for e, err := range present.List(ctx, "web/") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("a web server is at %s\n", e.Value)
	}
	// Output: a web server is at 10.0.0.1
}

// A job that runs on one node at a time writes down how far it has come. The next holder of the
// role goes on from there. A former holder that wakes up late cannot turn the cursor back: its
// write fails with flotilla.ErrLost.
func Example_cursor() {
	ctx := context.Background()
	node := open(ctx)
	defer node.Close()

	orders := []string{"#1", "#2", "#3"}
	cursor := kv.Typed[int](node.KV("cursors"))
	// bill makes out bills for some orders. It may be called on any node.
	bill := func(most int) error {
		role := flotilla.Role{Name: "billing"}
		return node.Hold(ctx, role, func(ctx context.Context, _ flotilla.Tenure) error {
			at, err := cursor.Get(ctx, "billing") // the zero value if there is no entry
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for i := at.Value; i < min(len(orders), at.Value+most); i++ {
				fmt.Println("bill for", orders[i])
				if _, err := cursor.Put(ctx, "billing", i+1, kv.Options{}); err != nil { // ctx has the fence
					return err
				}
			}
			return nil
		})
	}
	for range 2 {
		if err := bill(2); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// bill for #1
	// bill for #2
	// bill for #3
}

// Configuration that reloads: what an operator writes on one node is in use on all of them when the
// write returns, or a moment later.
func Example_configuration() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	node := open(ctx)
	defer node.Close()

	type settings struct{ MaxUploadMiB int }
	config := kv.Typed[settings](node.KV("config"))
	if _, err := config.Put(ctx, "web", settings{MaxUploadMiB: 10}, kv.Options{}); err != nil {
		log.Fatal(err)
	}

	var current atomic.Pointer[settings] // what handlers read
	reloaded := make(chan struct{})      // for this example: a program needs no such signal
	go func() {
		for change, err := range config.Watch(ctx, "web") {
			if err != nil {
				log.Print(err)
				return // ctx has ended, or someone has written what is no JSON of settings
			}
			if !change.Deleted {
				current.Store(&change.Item.Value)
				reloaded <- struct{}{}
			}
		}
	}()
	<-reloaded // the first event is the present entry
	fmt.Println(current.Load().MaxUploadMiB)

	if _, err := config.Put(ctx, "web", settings{MaxUploadMiB: 50}, kv.Options{}); err != nil {
		log.Fatal(err)
	}
	<-reloaded
	fmt.Println(current.Load().MaxUploadMiB)
	// Output:
	// 10
	// 50
}

// A counter that all nodes add to. No increment is lost, however many come at the same time.
func ExampleStore_Update() {
	ctx := context.Background()
	node := open(ctx)
	defer node.Close()

	visits := kv.Typed[int](node.KV("counters"))
	for range 3 {
		n, err := visits.Update(ctx, "visits", func(old kv.Item[int]) (int, error) { return old.Value + 1, nil }, kv.Options{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n.Value)
	}
	// Output:
	// 1
	// 2
	// 3
}

// A transaction changes several entries, or none of them. Its error names the condition that was
// not true.
func ExampleStore_Txn() {
	ctx := context.Background()
	node := open(ctx)
	defer node.Close()

	names := node.KV("names")
	register := func(user, id string) error {
		return names.Txn(ctx,
			[]kv.Cond{kv.IfAbsent("by-name/" + user), kv.IfAbsent("by-id/" + id)},
			[]kv.Op{
				kv.Put("by-name/"+user, []byte(id), kv.Options{}),
				kv.Put("by-id/"+id, []byte(user), kv.Options{}),
			})
	}
	fmt.Println(register("ann", "17"))
	err := register("ann", "18")
	var conflict *kv.ConflictError
	if errors.As(err, &conflict) {
		fmt.Println("not true:", conflict.Cond)
	}
	// Output:
	// <nil>
	// not true: "by-name/ann" is absent
}
