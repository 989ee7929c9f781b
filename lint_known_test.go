package flotilla_test

// known returns what is over a limit of TestStructure today: the measure, the package or type, and
// the number. The numbers may only go down. When one has, this command writes the table anew:
//
//	go test -run TestStructure . -lower
//
// A new entry needs a reason in its commit message.
func known() map[string]int {
	return map[string]int{
		"comments .":                         1280,
		"comments bench":                     56,
		"comments bench/internal/proc":       6,
		"comments bench/soak":                15,
		"comments clustertest":               14,
		"comments cmd/flotilla":              28,
		"comments examples/acmetest":         44,
		"comments examples/api":              5,
		"comments examples/balancers":        29,
		"comments examples/cloudip":          3,
		"comments examples/compose/balancer": 4,
		"comments examples/compose/ca":       8,
		"comments examples/compose/probe":    10,
		"comments examples/internal/lab":     16,
		"comments examples/quickstart":       53,
		"comments internal/codec":            3,
		"comments internal/durable":          69,
		"comments internal/fence":            87,
		"comments internal/guard":            101,
		"comments internal/history":          2,
		"comments internal/l2":               73,
		"comments internal/mutants":          16,
		"comments internal/netlab":           87,
		"comments internal/netlab/labnode":   4,
		"comments internal/remote":           15,
		"comments internal/rights":           1,
		"comments internal/seal":             50,
		"comments internal/simnet":           30,
		"comments internal/synctest":         8,
		"comments internal/wire":             151,
		"comments vip":                       185,
		"fields .Node":                       58,
		"fields .certs":                      39,
		"files .":                            86,
		"group .":                            71,
		"group cmd/flotilla":                 20,
		"group internal/durable":             10,
		"group internal/wire":                15,
		"group vip":                          9,
		"lines .":                            19100,
		"methods .Node":                      245,
		"methods .certs":                     97,
		"mutual .":                           111,
		"mutual cmd/flotilla":                12,
		"mutual internal/mutants":            7,
		"mutual internal/wire":               11,
		"mutual vip":                         7,
		"nodes .":                            5,
	}
}
