package netlab

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// respondAs is the environment variable with the name of a responder.
const respondAs = "NETLAB_RESPOND_AS"

// Main is for TestMain. In a process that [Host.Respond] started it is a responder until SIGTERM,
// and then exits. In other processes it does nothing.
func Main() {
	name, ok := os.LookupEnv(respondAs)
	if !ok {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Respond(ctx, name, Ready); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Ready tells [Host.StartReady] that this process, which it has started, is ready.
func Ready() {
	f := os.NewFile(3, "ready")
	f.Write([]byte{1})
	f.Close()
}
