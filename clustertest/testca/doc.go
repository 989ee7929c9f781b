// Package testca is a certificate authority in memory, for tests of programs that get certificates
// by ACME. It speaks RFC 8555 with the challenges HTTP-01, TLS-ALPN-01 (RFC 8737) and DNS-01, for
// names and for IP addresses (RFC 8738), and renewal information (RFC 9773). It validates
// challenges through functions of the test. No request needs a socket, so an authority works in a
// bubble of testing/synctest:
//
//	ca := testca.New(t, testca.Config{Dial: dial})
//	c := clustertest.New(t, 3, func(i int, c *flotilla.Config) { c.TLS.Configure = ca.Configure })
//
// The function dial connects the authority to a name, as the Internet and its DNS would: it picks
// the node that a challenge comes to. Tests make the authority slow, unreachable or limiting, and
// ask it afterwards what it was asked for and what it has signed.
//
// It has no external account binding, no terms of service, no lists of orders, no CAA records, and
// neither OCSP nor CRLs: Revoked says what is revoked. An authorization is never used again for
// another order, so each order proves what it is for.
//
// # What a test in one process does not show
//
// certmagic keeps state in variables of the process, which the nodes of a test share. Programs have
// one node in each process. Some of it misleads, and some of it hurts:
//
//   - A node answers the challenge of another one from the memory of the process. The authority
//     writes names in capitals when it validates them, as in APP.EXAMPLE. certmagic's memory knows
//     only the name as it was ordered, and so looks into the storage, on the ordering node too. So
//     a test shows that a token has reached the node that is asked. This does not work for the
//     HTTP-01 challenge of an IP address, which has no capitals. The handshake of a TLS-ALPN-01
//     challenge is let in because of that memory, and then answered from the storage.
//   - When nodes renew one name by certmagic's own timer at the same moment, only one of them
//     begins, in the whole process. That two nodes never order the same renewal is shown only for
//     orders that a test places itself, such as by Config.RenewCertSync of certmagic on each node.
//     Both kinds of order take the same lock of the cluster.
//   - After a renewal that failed, no node of the process tries that name again before certmagic's
//     pause is over. The pause is remembered by the name alone, also in the next test. Use other
//     names in each test.
//   - certmagic runs renewals by a pool of goroutines. Two bubbles that renew certificates must not
//     run at the same time: such tests must not be parallel.
//   - certmagic limits the renewals that its timer starts, to ten in ten seconds for each authority
//     and e-mail address. The limit has a goroutine that never ends. Call PrepareRenewals outside
//     of the bubble, or the bubble cannot end. That limit then counts real seconds.
//   - The preference for a challenge is that of the process. Config.Challenges names the one that a
//     test is about.
//
// Tests of orders across real processes, such as those of examples/acmetest with Pebble, show the
// rest.
package testca
