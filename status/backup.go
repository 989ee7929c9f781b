package status

import "time"

// Backup describes the last automatic backup that was verified.
type Backup struct {
	Time  time.Time // when it was made, by the clock of the node that made it; zero: there was none
	Name  string    // in the directory, or in the Store
	Node  string    // the name of the node that made it
	Index uint64    // of the last entry of the log that it includes
	Size  int64     // in bytes

	// Every is how old it may become. Makes says that this node is one of those that make backups.
	// Err is why it has failed to make a newer one.
	Every time.Duration
	Makes bool   `json:",omitempty"`
	Err   string `json:",omitempty"`
}

// Late reports whether the backup is older at a time than it may become, by more than a tenth. If
// there is none yet, it is late when an attempt has failed.
func (b *Backup) Late(now time.Time) bool {
	if b.Time.IsZero() {
		return b.Err != ""
	}
	return now.Sub(b.Time) > b.Every+b.Every/10
}
