// Package rights says why the kernel refused something: with the kernel's own word for it, and, only
// if that is so, with the capability that the process lacks and how to give it.
package rights
