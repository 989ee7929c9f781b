package vip_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/vip"
)

// A floating address on a link in memory. Without a Binder it would be in the kernel.
func ExampleRun() {
	ctx, cancel := context.WithCancel(context.Background())
	node, err := flotilla.Open(ctx, flotilla.Config{Name: "alpha"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	link := vip.NewMemory()
	addr := netip.MustParsePrefix("192.0.2.100/24")
	err = vip.Run(ctx, node, vip.Config{
		Addr:   addr,
		Binder: link.Machine("alpha"),
		Notify: func(e vip.Event) {
			fmt.Println(e.Kind, e.Addrs, "on", link.Owners(addr.Addr()))
			cancel() // as at the end of the program
		},
	})
	fmt.Println(err)
	// Output:
	// bound [192.0.2.100/24] on [alpha]
	// moved [192.0.2.100/24] on []
	// <nil>
}
