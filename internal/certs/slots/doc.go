// Package slots keeps the whole cluster to certmagic's limit of orders in a window of time, which
// certmagic itself enforces in each process only.
//
// There are as many locks in the cluster's storage as orders are allowed in a window. An order
// takes a free one, and its node keeps it for the length of the window. So two orders with the same
// lock are at least a window apart by the clock of the node that had it first, and no window sees
// more orders than there are locks.
//
// Names on demand have slots of their own in a longer window, so that they take nothing from the
// declared names and cannot use up the authority's limit for the account.
//
// Assumptions: a node that dies or closes frees its locks early. That is the price of not having a
// common clock. If the storage or the slots fail for a while, Acquire lets the order happen: a
// limit is no reason to let certificates expire.
package slots
