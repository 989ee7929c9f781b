// Command chat is a chat server for three machines. A message is an entry of package kv that
// expires after a day. Every node pushes what its Watch yields to its own visitors, by WebSocket.
// So all visitors see all messages in the same order, whatever node they are connected to, and a
// visitor whose node ends goes on at another one.
//
// Without any configuration it runs alone, in memory, at https://localhost:8443. On three machines
// FLOTILLA_* configures it (see flotilla.ConfigFromEnv), and CHAT_DOMAINS has the names to serve,
// separated by commas.
//
// chat.go has the chat itself, and websocket.go as much of RFC 6455 as it needs.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	cfg, err := flotilla.ConfigFromEnv()
	if err != nil {
		return err
	}
	domains := strings.FieldsFunc(os.Getenv("CHAT_DOMAINS"), func(r rune) bool { return r == ',' || r == ' ' })
	node, err := flotilla.Open(ctx, cfg)
	if err != nil {
		return err
	}
	c := newChat(node)
	err = node.Serve(ctx, c.handler(ctx), domains...)
	c.wait() // Serve does not wait for WebSockets
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, node.Shutdown(ending))
}
