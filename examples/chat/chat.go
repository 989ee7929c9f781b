package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/kv"
)

const (
	keep     = 24 * time.Hour // a message
	maxText  = 1000           // bytes of a message
	maxName  = 60             // bytes of a visitor's name; the page takes 20 UTF-16 units
	postTime = 10 * time.Second

	lastKey = "last"     // the entry that has the number of the newest message
	prefix  = "message/" // and the number, so the order of keys is that of messages
)

//go:embed page.html
var page []byte

// message is what is stored and what visitors get, as JSON.
type message struct {
	Number uint64 // 1, 2, 3 and so on
	From   string // the name of a visitor
	Text   string
	Node   string // the name of the node that took it
}

// failure is what a visitor gets whose message was not taken, as JSON.
type failure struct{ Error string }

// chat is the chat on one node.
type chat struct {
	node     string // its name
	store    *kv.Store
	visitors sync.WaitGroup
}

func newChat(node *flotilla.Node) *chat {
	return &chat{node: node.Status().Name, store: node.KV("chat")}
}

// wait waits until every visitor has been asked to go. Call it when no request comes any more.
func (c *chat) wait() { c.visitors.Wait() }

// handler serves visitors. When ctx ends, it asks them to go to another node.
func (c *chat) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(page)
	})
	mux.HandleFunc("GET /chat", func(w http.ResponseWriter, r *http.Request) { c.visit(ctx, w, r) })
	return mux
}

// visit serves a visitor until ctx or the visitor ends the connection. A visitor who comes from
// another node names the newest message that was seen there.
func (c *chat) visit(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	c.visitors.Add(1)
	defer c.visitors.Done()
	if ctx.Err() != nil {
		http.Error(w, "this node ends; try again, and you get another one", http.StatusServiceUnavailable)
		return
	}
	// Any page may open a WebSocket to any host, and browsers say which page it was.
	origin := r.Header.Get("Origin")
	if u, err := url.Parse(origin); origin != "" && (err != nil || u.Host != r.Host) {
		http.Error(w, "the page of another host cannot chat here", http.StatusForbidden)
		return
	}
	name, after := r.FormValue("name"), r.FormValue("after")
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		http.Error(w, fmt.Sprintf("a name has 1 to %d bytes", maxName), http.StatusBadRequest)
		return
	}
	s, err := upgrade(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer s.close()
	ctx, cancel := context.WithCancel(ctx)
	var pushing sync.WaitGroup
	pushing.Go(func() {
		c.push(ctx, s, after)
		s.goodbye(goingAway) // the visitor's answer, or silence, ends the loop below
	})
	defer func() {
		cancel()
		pushing.Wait()
	}()
	for {
		text, err := s.read()
		if err != nil {
			return
		}
		var why string
		if text = strings.TrimSpace(text); text == "" || len(text) > maxText {
			why = fmt.Sprintf("a message has 1 to %d bytes", maxText)
		} else if err := c.post(name, text); err != nil {
			slog.Warn("a message was not taken", "err", err)
			why = "your message may be lost; look whether it is there, and try again"
		}
		if why != "" && s.writeJSON(failure{why}) != nil {
			return
		}
	}
}

// push sends messages to a visitor: those that are there and then each new one. It returns when
// that cannot go on. A visitor who reads slowly delays nobody.
func (c *chat) push(ctx context.Context, s *socket, after string) {
	for ev, err := range c.store.Watch(ctx, prefix) {
		if err != nil {
			return
		}
		if ev.Deleted || strings.TrimPrefix(ev.Entry.Key, prefix) <= after {
			continue
		}
		if s.write(ev.Entry.Value) != nil {
			return
		}
	}
}

// post stores a message once, with the next number. If another message was faster, it tries the
// number after that. A server that ends completes it.
func (c *chat) post(from, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), postTime)
	defer cancel()
	last := kv.Typed[uint64](c.store)
	for {
		at, err := last.Get(ctx, lastKey)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		m := message{Number: at.Value + 1, From: from, Text: text, Node: c.node}
		value, err := json.Marshal(m)
		if err != nil {
			return err
		}
		key := fmt.Sprintf("%s%020d", prefix, m.Number)
		err = c.store.Txn(ctx, []kv.Cond{kv.IfVersion(lastKey, at.Version)}, []kv.Op{
			kv.Put(lastKey, fmt.Append(nil, m.Number), kv.Options{}), // which is JSON too
			kv.Put(key, value, kv.Options{TTL: keep}),
		})
		if !errors.Is(err, kv.ErrConflict) && !errors.Is(err, flotilla.ErrLost) {
			return err
		}
		// A node that was cut off for a moment may have stored the message nevertheless. The condition
		// keeps a late attempt from storing it again.
		if e, err := c.store.Get(ctx, key); err == nil && bytes.Equal(e.Value, value) {
			return nil
		}
	}
}
