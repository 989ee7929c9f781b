package status

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpace(t *testing.T) {
	for name, test := range map[string]struct {
		space   Space
		percent int
		warning string
		full    bool
	}{
		"no limit": {Space{What: "locks", Bytes: 7}, 0, "", false},
		"room":     {Space{What: "locks", Bytes: 799, Limit: 1000}, 79, "", false},
		"scarce": {
			Space{What: "locks", Bytes: 800, Limit: 1000, Field: "MaxRecords"}, 80,
			"locks take 80 % of their limit of 1000 bytes, and writes beyond it are refused; delete some or raise Config.MaxRecords", false,
		},
		"full, by an older node": {
			Space{What: "locks", Bytes: 950, Limit: 1000}, 95,
			"locks take 95 % of their limit of 1000 bytes, and writes beyond it are refused; delete some or raise Config.MaxState", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.space.Percent(); got != test.percent {
				t.Errorf("%d percent, want %d", got, test.percent)
			}
			if diff := cmp.Diff(test.warning, test.space.Warning()); diff != "" {
				t.Errorf("the warning (-want +got):\n%s", diff)
			}
			if got := test.space.Full(); got != test.full {
				t.Errorf("full is %v", got)
			}
		})
	}
}

func TestBackupLate(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		backup Backup
		late   bool
	}{
		"new":                 {Backup{Time: now.Add(-time.Hour), Every: 10 * time.Hour}, false},
		"a tenth late":        {Backup{Time: now.Add(-11 * time.Hour), Every: 10 * time.Hour}, false},
		"later":               {Backup{Time: now.Add(-11*time.Hour - 1), Every: 10 * time.Hour}, true},
		"none yet":            {Backup{Every: time.Hour}, false},
		"none yet, it failed": {Backup{Every: time.Hour, Err: "e"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.backup.Late(now); got != test.late {
				t.Errorf("late is %v", got)
			}
		})
	}
}

// Other nodes, the command and programs read the JSON form. A field that is renamed is lost to
// them.
func TestJSON(t *testing.T) {
	for name, test := range map[string]struct {
		value any
		want  string
	}{
		"nothing said": {Status{}, `{"ID":"","Name":"","Addr":"","Cluster":"","Leader":"","LeaderName":"","Term":0,"Index":0,` +
			`"Ready":false,"Draining":false,"Err":"","Lease":{"Held":false,"LeftMillis":0,"Session":0},"Members":null,"Roles":null,` +
			`"Certificates":null,"Tickets":{"Key":"","Since":"0001-01-01T00:00:00Z","AgeSeconds":0,"Previous":0},"Space":null}`},
		"a member": {Member{ID: "i", Voter: true, Present: true}, `{"ID":"i","Name":"","Addr":"","Voter":true,"Present":true}`},
		"a role": {
			Role{Name: "r", HoldDown: true},
			`{"Name":"r","Group":"","Holder":"","Fence":0,"Yields":false,"Waiting":0,"Since":"0001-01-01T00:00:00Z","Outage":0,"HoldDown":true}`,
		},
		"a certificate": {
			Certificate{Name: "c", Failures: 1},
			`{"Name":"c","Issuer":"","Serial":"","NotAfter":"0001-01-01T00:00:00Z","DaysLeft":0,"Err":"","Failures":1}`,
		},
		"a budget": {Space{What: "locks"}, `{"What":"locks","Bytes":0,"Limit":0,"Field":""}`},
		"a backup": {Backup{Makes: true}, `{"Time":"0001-01-01T00:00:00Z","Name":"","Node":"","Index":0,"Size":0,"Every":0,"Makes":true}`},
		"a wait":   {Wait{What: "w"}, `{"What":"w","Why":"","Since":"0001-01-01T00:00:00Z"}`},
		"a peer":   {Peer{ID: "i", Stopped: true}, `{"ID":"i","Name":"","Addr":"","Err":"","Since":"0001-01-01T00:00:00Z","Stopped":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := json.Marshal(test.value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(b)); diff != "" {
				t.Errorf("its JSON (-want +got):\n%s", diff)
			}
		})
	}
}
