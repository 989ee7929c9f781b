// Package devca is the private certificate authority of the development mode and of tests.
//
// It signs every name that it is asked for, with a root that nobody trusts by default and whose key is
// in the storage beside the certificates. It does not validate who controls a name, revokes nothing
// and keeps no record. It is only for people at this machine, and its root must not be put into a
// trust store.
package devca
