// Package hostname checks and normalizes host names: of domains that certificates are ordered for,
// and of the Host of requests.
package hostname
