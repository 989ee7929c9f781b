package kv

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A value that is no JSON of the type is an error that names the entry, and not its value.
func TestTypedValues(t *testing.T) {
	s := &Store{bucket: "b"}
	if got, err := itemOf[[]int](s, Entry{Key: "k", Value: []byte("[1,2]"), Version: 7}); err != nil || !cmp.Equal(got, Item[[]int]{Key: "k", Value: []int{1, 2}, Version: 7}) {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := itemOf[[]int](s, Entry{Key: "k", Value: []byte(`"secret"`)})
	if err == nil || !strings.Contains(err.Error(), "flotilla: decode b/k: the value is no JSON of a []int") || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error is %v", err)
	}
}
