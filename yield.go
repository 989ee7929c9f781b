package flotilla

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// any, isPublic and isRole are what yieldAll chooses by.
func (t *tenure) any() bool      { return true }
func (t *tenure) isPublic() bool { return t.public }
func (t *tenure) isRole() bool   { return strings.HasPrefix(t.key, keyspace.RolePrefix) }

// yieldAll has the chosen tenures of this node handed over, and waits for it.
func (n *holder) yieldAll(ctx context.Context, chosen func(*tenure) bool) error {
	for {
		ended := n.tenures.ended.Wait()
		all := slices.DeleteFunc(n.tenures.all(), func(t *tenure) bool { return !chosen(t) })
		for _, t := range all {
			t.yield()
		}
		var next time.Time // when the first of them must have ended
		all = slices.DeleteFunc(all, func(t *tenure) bool {
			end := t.Deadline()
			over := !time.Now().Before(end)
			if !over && (next.IsZero() || end.Before(next)) {
				next = end
			}
			return over
		})
		if len(all) == 0 {
			return nil
		}
		select {
		case <-ended:
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return fmt.Errorf("%d roles are still held, %s among them: %w", len(all), all[0].key, context.Cause(ctx))
		}
	}
}
