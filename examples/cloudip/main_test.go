package main

import (
	"bytes"
	"strings"
	"testing"
)

// The cloud gives the address twice, and refuses a late call of the dead owner.
func TestDemo(t *testing.T) {
	var out bytes.Buffer
	if err := demo(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log("\n" + out.String())
	for what, times := range map[string]int{
		"cloud  gives the address": 2, "demo   kills": 1, "has the address after": 1, "cloud  refuses": 1,
	} {
		if got := strings.Count(out.String(), what); got != times {
			t.Errorf("%q is there %d times, want %d:\n%s", what, got, times, out.String())
		}
	}
}
