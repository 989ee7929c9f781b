// Package hostname decides what counts as a host name: in the configuration, in a certificate and
// in a request.
//
// It is strict, because names are keys. Each name has one form: lower case, ASCII, no dot at its
// end, and addresses as netip.Addr writes them. The package has no state and does no I/O.
package hostname
