// Package records knows certmagic's storage layout: what each key is for, which keys belong
// together and which mean nothing to another storage. It also holds the report that imports and
// exports end with.
package records
