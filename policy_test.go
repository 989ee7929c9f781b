package flotilla

import (
	"context"
	"log/slog"

	"github.com/caddyserver/certmagic"
)

// openCerts is newCerts for certificates that belong to no node.
func openCerts(p certPolicy, storage certmagic.Storage, development bool, ready func(context.Context) error, l *slog.Logger) (*certs, error) {
	return newCerts(certConfig{policy: p, storage: storage, development: development, ready: ready, log: l})
}
