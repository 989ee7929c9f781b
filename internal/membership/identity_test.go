package membership

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// A node is what its directory says, or does not start.
func TestIdentitiesThatAreRefused(t *testing.T) {
	secret := seal.Secret{1}
	valid := NewIdentity([]seal.Secret{secret})
	valid.Member = true
	write := func(change func(*Identity)) []byte {
		id := *valid
		change(&id)
		b, err := id.encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, test := range []struct {
		name, field, want string
		content           []byte
	}{
		{"as it is", "", "", write(func(*Identity) {})},
		{"of a later version", "Dir", "was written by a later version", write(func(id *Identity) { id.Version++ })},
		{"of an earlier version", "Dir", "was written by an earlier version", write(func(id *Identity) { id.Version-- })},
		{"of another secret", "Secrets", "is sealed with the secret", write(func(id *Identity) { id.Key = seal.Secret{2}.ID().String() })},
		{"no JSON", "Dir", "the node's identity cannot be read", []byte("x")},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, err := durable.Lock(filepath.Join(t.TempDir(), "node"))
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			if err := dir.WriteFile(durable.IdentityFile, test.content); err != nil {
				t.Fatal(err)
			}
			id, _, err := LoadIdentity(dir, []seal.Secret{secret})
			var wrong *errs.ConfigError
			switch {
			case test.want == "" && (err != nil || id.ID != valid.ID):
				t.Errorf("%+v, %v", id, err)
			case test.want != "" && (!errors.As(err, &wrong) || wrong.Field != test.field || !strings.Contains(wrong.Reason, test.want)):
				t.Errorf("the error is %v, want one about %s with %q", err, test.field, test.want)
			}
		})
	}
}

// The identity file keeps what was saved, and what is reserved only as long as the process lives.
func TestIdentityFile(t *testing.T) {
	dir, err := durable.Lock(filepath.Join(t.TempDir(), "node"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	secrets := []seal.Secret{{1}}
	file := NewIdentityFile(dir, NewIdentity(secrets))
	if err := file.Save(func(id *Identity) {
		id.Name, id.Formation, id.Incarnation = "n1", &Stand{exampleProposal, promised}, 3
		id.AddProcess("p1")
	}); err != nil {
		t.Fatal(err)
	}
	saved := file.Identity()
	if err := file.reserve("another", 0); err == nil || !strings.Contains(err.Error(), "has promised itself") {
		t.Errorf("a node that has promised itself to a cluster belongs to another one: %v", err)
	}
	if err := file.reserve(exampleProposal.Cluster, 0); err != nil || file.ClusterID() != exampleProposal.Cluster {
		t.Errorf("it belongs to %q: %v", file.ClusterID(), err)
	}
	loaded, written, err := LoadIdentity(dir, secrets)
	if err != nil || !written {
		t.Fatal(written, err)
	}
	if diff := cmp.Diff(saved, *loaded); diff != "" {
		t.Errorf("-saved +loaded:\n%s", diff)
	}
}

// Of many processes the first and the newest are kept.
func TestAddProcess(t *testing.T) {
	id := new(Identity)
	for i := range state.MaxProcesses + 10 {
		before := id.Processes
		kept := slices.Clone(before)
		id.AddProcess(fmt.Sprint(i))
		if !slices.Equal(before, kept) {
			t.Fatal("a list that others may read has changed")
		}
	}
	if n := len(id.Processes); n != state.MaxProcesses || id.Processes[0] != "0" ||
		id.Processes[1] != "11" || id.Processes[n-1] != fmt.Sprint(state.MaxProcesses+9) {
		t.Errorf("%d processes: %v", n, id.Processes)
	}
}
