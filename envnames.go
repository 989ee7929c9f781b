package flotilla

import (
	"maps"
	"slices"
	"strings"
)

const envPrefix = "FLOTILLA_"

// envNames returns the variables that ConfigFromEnv reads, without their prefix, and the field that
// each sets.
func envNames() map[string]string {
	return map[string]string{
		"DIR": "Dir", "NAME": "Name", "ADDR": "Addr", "ADVERTISE": "Advertise", "ZONE": "Zone", "SECRETS": "Secrets", "SECRETS_FILE": "SecretsFile",
		"PEERS": "Peers", "EXPECT": "Expect", "REMOVE_DEAD": "RemoveDead", "BACKUPS": "Backups", "TIMING": "Timing", "GUARD": "Guard", "MAX_STATE": "MaxState", "MAX_RECORDS": "MaxRecords", "EMAIL": "TLS.Email", "ACME_CA": "TLS.CA",
		"ACME_ROOTS": "TLS.TrustedRoots", "PROXIES": "Proxies", "HTTPS_ADDR": "HTTPSAddr", "HTTP_ADDR": "HTTPAddr", "HEALTH_ADDR": "HealthAddr", "HEALTH_TOKEN": "HealthToken",
		"HEALTH_TOKEN_FILE": "HealthToken", "LOG": "Logger",
	}
}

// unknownVariables returns a *ConfigError for the first variable, in alphabetical order, that has
// flotilla's prefix and that nothing reads.
func unknownVariables(environ []string) error {
	known := envNames()
	var unknown []string
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if short, ok := strings.CutPrefix(name, envPrefix); ok && known[short] == "" && !othersVariable(name, environ) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	nearest, distance := "", 0
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := editDistance(strings.TrimPrefix(unknown[0], envPrefix), k); nearest == "" || d < distance {
			nearest, distance = k, d
		}
	}
	reason := "is not known; "
	field := ""
	if distance <= max(2, len(nearest)/2) {
		field = known[nearest]
		reason += "is " + envPrefix + nearest + " meant? Otherwise unset it"
	} else {
		reason += "unset it, or see ConfigFromEnv for the known ones"
	}
	return envError(field, unknown[0], reason, nil)
}

// othersVariable reports whether a variable with our prefix belongs to something else: the guard, a
// test, or Kubernetes, which sets variables such as FLOTILLA_SERVICE_HOST and FLOTILLA_PORT_443_TCP
// for a service.
func othersVariable(name string, environ []string) bool {
	if name == envPrefix+"GUARD_PROCESS" || strings.HasPrefix(name, envPrefix+"TEST_") {
		return true
	}
	return slices.ContainsFunc(environ, func(e string) bool {
		host, _, _ := strings.Cut(e, "=")
		service, ok := strings.CutSuffix(host, "_SERVICE_HOST")
		return ok && (strings.HasPrefix(name, service+"_SERVICE_") || strings.HasPrefix(name+"_", service+"_PORT_"))
	})
}

// editDistance returns how many letters must be inserted, deleted or replaced to turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// envError returns a *ConfigError for a field whose value came from a variable.
func envError(field, variable, reason string, err error) error {
	return &ConfigError{Field: field, Reason: variable + " " + reason, Err: err}
}
