package wire

import (
	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// DeathNotice makes the death notice of a session of node, see package deathnotice. Its bearer can
// have Config.DeathNotice called at the nodes at addrs, and do nothing else.
func (p *Port) DeathNotice(node string, session uint64, addrs []string) ([]byte, error) {
	p.mu.Lock()
	secret := p.secrets[0]
	p.mu.Unlock()
	id, err := peertls.NewBearer(secret, peertls.Notice{Node: node, Session: session})
	if err != nil {
		return nil, err
	}
	w := deathnotice.Notice{
		Addrs:      addrs,
		ServerName: id.ServerName(),
		Protocol:   string(peerconn.RPC),
		Time:       peertls.Now().Unix(),
	}
	w.CA, w.Cert, w.Key = id.Export()
	return w.Encode(), nil
}
