package records

import "testing"

func TestKindOf(t *testing.T) {
	for key, want := range map[string]struct {
		kind  Kind
		group string // empty: the key
	}{
		"certificates/i/a.example/a.example.key":             {Certificate, "certificates/i/a.example"},
		"certificates/i/wildcard_.a/wildcard_.a.json":        {Certificate, "certificates/i/wildcard_.a"},
		"certificates/i/a.lock/a.lock.crt":                   {Certificate, "certificates/i/a.lock"},
		"certificates/i/a.example/a.example.key.compromised": {Other, ""},
		"certificates/i/a.example/b.example.key":             {Other, ""},
		"certificates/i/a.example/sub/a.example.key":         {Other, ""},
		"certificates/i/a.example/12345678":                  {Unfinished, ""},
		"acme/i/users/default/default.key":                   {Account, "acme/i/users/default"},
		"acme/i/challenge_tokens/a.example.json":             {Token, ""},
		"acme/i/users":                                       {Other, ""},
		"ocsp/a.example-0123":                                {Staple, ""},
		"ocsp/0123":                                          {Unfinished, ""},
		"mine/0123":                                          {Other, ""},
		"0123":                                               {Other, ""},
		"ocsp":                                               {Other, ""},
		"locks/x":                                            {Lock, ""},
		"locks":                                              {Other, ""},
		"issue_cert_a.lock":                                  {Lock, ""},
		"rw_test_1":                                          {Test, ""},
		"mine/rw_test_1":                                     {Other, ""},
		"last_clean.json":                                    {Mark, ""},
		"mine/last_clean.json":                               {Other, ""},
		TempPrefix + "x":                                     {Unfinished, ""},
	} {
		if want.group == "" {
			want.group = key
		}
		if kind, group := KindOf(key); kind != want.kind || group != want.group {
			t.Errorf("%s is %s of %s, want %s of %s", key, kind, group, want.kind, want.group)
		}
	}
}

func TestPrefixOf(t *testing.T) {
	for key, want := range map[string]string{
		"acme/certificates/i/a.example/a.example.crt": "acme",
		"a/b/certificates/i/a.example/a.example.key":  "a/b",
		"certificates/i/a.example/a.example.crt":      "",
		"acme/certificates/i/a.example/b.example.crt": "",
		"acme/a.example.crt":                          "",
	} {
		if got, ok := PrefixOf(key); got != want || ok != (want != "") {
			t.Errorf("%s has the prefix %q, %v, want %q", key, got, ok, want)
		}
	}
}
