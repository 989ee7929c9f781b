package state

import (
	"fmt"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Describe says in a few words what a command does, for people. It shows names and no value.
func (c *Command) Describe() string {
	switch ch := c.Change.(type) {
	case StoreRecord:
		return "stores " + ch.Key
	case PutRecords:
		var keys []string
		for _, r := range ch.Records {
			keys = append(keys, r.Key)
		}
		return "stores " + strings.Join(keys, ", ")
	case DeleteRecords:
		return "deletes " + ch.Key
	case WriteItems:
		var keys []string
		for _, op := range ch.Ops {
			keys = append(keys, op.Key)
		}
		return fmt.Sprintf("writes %s in the bucket %s", strings.Join(keys, ", "), ch.Bucket)
	case ExpireItems:
		return fmt.Sprintf("deletes %d expired entries of buckets", len(ch.Items))
	case ClaimRole:
		return "claims " + roleName(ch.Role)
	case ReleaseRole:
		return "releases " + roleName(ch.Role)
	case YieldRole:
		return "asks for " + roleName(ch.Role)
	case MoveRole:
		return "moves " + roleName(ch.Role)
	case RotateTickets, DropTickets:
		return "replaces the keys of session tickets"
	case OpenSession:
		return "opens a session"
	case RaiseVersion:
		return fmt.Sprintf("raises the cluster version to %d", ch.To)
	case EvictMember, ShutOut, EndEviction:
		return "evicts a node"
	case LeaveSession, EndSession, EndByDeathNotice:
		return "ends a session"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", c.Change), "state.")
}

// roleName names a role or a lock for people.
func roleName(role string) string {
	if lock, ok := strings.CutPrefix(role, keyspace.LockPrefix); ok {
		return "the lock " + lock
	}
	return "the role " + strings.TrimPrefix(strings.TrimPrefix(role, keyspace.RolePrefix), keyspace.OwnPrefix)
}
