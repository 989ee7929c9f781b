package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// stopTimeout bounds the end of a node after SIGTERM. The node itself takes at most 10 s.
const stopTimeout = 12 * time.Second

// member is one node as its parent sees it.
type member struct {
	*process.Process
	settings settings
	client   *http.Client // for the health port
	answers  chan []byte  // lines of the process
}

func newMember(s settings, logTo io.Writer) *member {
	m := &member{
		settings: s,
		client:   &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		answers:  make(chan []byte, 1),
	}
	m.Process = process.New(process.Config{
		Name: s.Name, Variable: nodeEnv, LogTo: logTo, Attr: procAttr(),
		OnLine: func(line []byte) { m.answers <- line },
	})
	return m
}

// start starts the process. Its ports must still be free: another program may have taken them.
func (m *member) start() error { return m.Start(m.settings) }

// terminate asks the process to end, and waits until it has ended with status 0.
func (m *member) terminate(ctx context.Context) error {
	if err := m.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := m.AwaitExit(ctx, stopTimeout); err != nil {
		return fmt.Errorf("after SIGTERM: %w%s", err, m.lastLines())
	}
	return nil
}

// lastLines returns the last log lines, as the end of the text of an error.
func (m *member) lastLines() string {
	lines := m.Log().Tail(8)
	if lines == "" {
		return "; it has logged nothing"
	}
	return "; its last log lines:\n" + lines
}

// get requests path from the health port of the node.
func (m *member) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(m.settings.Ports.Health)+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", path, resp.Status)
	}
	return body, err
}

// ready returns nil if the node is ready.
func (m *member) ready(ctx context.Context) error {
	_, err := m.get(ctx, "/readyz")
	return err
}

// status returns the status that the node reports.
func (m *member) status(ctx context.Context) (flotilla.Status, error) {
	var s flotilla.Status
	body, err := m.get(ctx, "/status")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// keys asks the node, through its pipe, for the private keys in storage.
func (m *member) keys(ctx context.Context) (map[string]string, error) {
	if err := m.Send([]byte("keys")); err != nil {
		return nil, err
	}
	var line []byte
	select {
	case line = <-m.answers:
	case <-m.Exited():
		return nil, errors.New("the process has ended")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var a keysAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, err
	}
	if a.Err != "" {
		return nil, errors.New(a.Err)
	}
	return a.Keys, nil
}

// cluster is the three nodes.
type cluster struct {
	members []*member
	secret  flotilla.Secret
}

// newCluster prepares nodes with these names, whose directories are in dir. It starts none.
func newCluster(dir string, logTo func(name string) io.Writer, names ...string) (*cluster, error) {
	all, err := process.FreePorts(4 * len(names))
	if err != nil {
		return nil, err
	}
	c := &cluster{secret: flotilla.NewSecret()}
	peers := make([]string, len(names))
	for i := range names {
		peers[i] = local(all[4*i])
	}
	for i, name := range names {
		c.members = append(c.members, newMember(settings{
			Name: name, Dir: filepath.Join(dir, name), Secret: c.secret.Encode(), Peers: peers,
			Ports: ports{Cluster: all[4*i], TLS: all[4*i+1], HTTP: all[4*i+2], Health: all[4*i+3]},
		}, logTo(name)))
	}
	return c, nil
}

// close kills every process.
func (c *cluster) close() {
	for _, m := range c.members {
		m.Kill()
	}
}

// addrs returns the address of one port of each node.
func (c *cluster) addrs(pick func(ports) int) []string {
	var addrs []string
	for _, m := range c.members {
		addrs = append(addrs, local(pick(m.settings.Ports)))
	}
	return addrs
}
