// Package backups keeps a cluster backed up: it makes backups by itself, proves that each can be
// restored, and removes old ones.
//
// # Guarantees
//
// A backup counts when it was read back from its [Store] and restored into memory, not before. One
// is made every [Config.Every], and soon after a certificate has changed. A failure is logged and
// repeated, and the backups that are there stay. One that is stored and could not be read back does
// not count, and stays too, until it can be read or a newer one counts. It takes the place of none
// that counts, also when another node makes the next one. Of each period of Every the newest backup
// is kept, for as many periods as [Config.Keep] says. Only files with names of this cluster's
// backups are removed.
//
// # Assumptions
//
// One node at a time runs a [Keeper]: it holds a role for that. The wall clock says when the next
// backup is due, and in which period a backup was made. A clock that is wrong makes too many or too
// few of them. Where one is ahead of others, a backup that nobody has read back may take the place
// of one that counts.
//
// # Flow
//
//	due ─► Make ─► Store.Save ─► Store.Load ─► Verify ─► Record ─► remove old ones
package backups
