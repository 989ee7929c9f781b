package flotilla

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/membership"
)

// ownSettings returns this node's settings that are compared with those of its peers. The domains
// are those that it serves at this moment.
func (n *Node) ownSettings() membership.Settings {
	if n.cfg.Witness { // it uses no other
		v := map[string]string{membership.TimingSetting: n.cfg.Timing.String()}
		return membership.Settings{Version: membership.SettingsVersion, Values: v}
	}
	issuers := n.certs.Issuers()
	v := map[string]string{
		membership.TimingSetting: n.cfg.Timing.String(),
		"MaxState":               strconv.FormatInt(n.cfg.MaxState, 10),
		"MaxRecords":             strconv.FormatInt(n.cfg.MaxRecords, 10),
		"TLS.CA":                 n.cfg.TLS.CA,
		"TLS.Private":            strconv.FormatBool(n.cfg.TLS.Private),
		"TLS.PerNode":            strconv.FormatBool(n.cfg.TLS.PerNode),
		"TLS.TicketRotation":     n.cfg.TLS.TicketRotation.String(),
		"TLS issuers":            strings.Join(issuers, ", "),
	}
	if v["TLS.CA"] == "" {
		v["TLS.CA"] = certmagic.LetsEncryptProductionCA
	}
	if n.cfg.TLS.Private {
		delete(v, "TLS.CA") // not used
	}
	if domains := n.certs.Domains(); len(domains) > 0 { // it may serve none, or none yet
		text := strings.Join(domains, ", ")
		if len(text) > membership.LongestSetting {
			text = fmt.Sprintf("%d names, checksum %x", len(domains), sha256.Sum256([]byte(text)))
		}
		v[errs.Domains] = text
	}
	return membership.Settings{Version: membership.SettingsVersion, Values: v}
}
