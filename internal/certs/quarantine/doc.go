// Package quarantine deals with records of certmagic's that cannot be read: a certificate that is
// garbage, cut short or for another name, a key that does not belong to the certificate, an account
// whose key is lost. With such a record certmagic fails for ever and orders nothing.
//
// Here such a record counts as missing. Its records are copied to flotilla/quarantine/TIME/…, for
// people who want to know what happened. Then the record without which certmagic takes the
// certificate for missing is deleted: the metadata. The rest stays until it is overwritten, so that
// nodes know that the name has had a certificate.
//
// A certificate is written part by part, and a half-written one is not damaged. So its records must
// be damaged and unchanged for a few seconds. Then the node takes certmagic's own lock of the name
// and looks again.
package quarantine
