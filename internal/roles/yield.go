package roles

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Any, isPublic and isRole are what yieldAll chooses by.
func (t *Tenure) Any() bool      { return true }
func (t *Tenure) IsPublic() bool { return t.public }
func (t *Tenure) IsRole() bool   { return strings.HasPrefix(t.Key, keyspace.RolePrefix) }

// YieldAll has the chosen tenures of this node handed over, and waits for it.
func (n *Holder) YieldAll(ctx context.Context, chosen func(*Tenure) bool) error {
	for {
		ended := n.Tenures.ended.Wait()
		all := slices.DeleteFunc(n.Tenures.All(), func(t *Tenure) bool { return !chosen(t) })
		for _, t := range all {
			t.yield()
		}
		var next time.Time // when the first of them must have ended
		all = slices.DeleteFunc(all, func(t *Tenure) bool {
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
			return fmt.Errorf("%d roles are still held, %s among them: %w", len(all), all[0].Key, context.Cause(ctx))
		}
	}
}
