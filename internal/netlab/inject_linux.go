package netlab

import "errors"

// Delivers returns true if what one host sends to another arrives, by the faults that are on.
func (l *Lab) Delivers(from, to *Host) bool { return l.faults.delivers(from.index, to.index) }

// Partition splits the network at once. Hosts of one group reach each other and no others. Hosts in
// no group form one more group. Links stay up. A later Partition replaces an earlier one.
func (l *Lab) Partition(groups ...[]*Host) error {
	return l.faults.change(func(n *network) {
		clear(n.side)
		for i, g := range groups {
			for _, h := range g {
				n.side[h.index] = i + 1
			}
		}
	})
}

// Heal ends the partition and all one-way cuts. Links that are down or cut stay so.
func (l *Lab) Heal() error {
	return l.faults.change(func(n *network) {
		clear(n.side)
		clear(n.mute)
		clear(n.deaf)
	})
}

// CutSending drops everything that the host sends, at the bridge. The host still receives, and its
// link stays up.
func (h *Host) CutSending() error {
	return h.faults.change(func(n *network) { n.mute[h.index] = true })
}

// CutReceiving drops everything that is sent to the host, at the bridge. What the host sends
// arrives, and its link stays up.
func (h *Host) CutReceiving() error {
	return h.faults.change(func(n *network) { n.deaf[h.index] = true })
}

// LinkDown takes the host's interface down. The kernel then removes its IPv6 addresses and keeps
// its IPv4 addresses.
func (h *Host) LinkDown() error {
	if err := h.link.setInterface(false); err != nil {
		return err
	}
	return h.faults.change(func(n *network) { n.down[h.index] = true })
}

// LinkUp takes the host's interface up again, and gives the host its own addresses back.
func (h *Host) LinkUp() error {
	err := errors.Join(
		h.link.setInterface(true),
		h.faults.change(func(n *network) { n.down[h.index] = false }),
	)
	if err != nil {
		return err
	}
	return h.awaitLink()
}

// Cut takes down the bridge port of the host. The interface of the host stays up and loses its
// carrier, as if its cable was pulled.
func (h *Host) Cut() error {
	if err := h.link.setPort(false); err != nil {
		return err
	}
	return h.faults.change(func(n *network) { n.cut[h.index] = true })
}

// Mend ends Cut, CutSending and CutReceiving.
func (h *Host) Mend() error {
	if err := h.link.setPort(true); err != nil {
		return err
	}
	err := h.faults.change(func(n *network) { n.cut[h.index], n.mute[h.index], n.deaf[h.index] = false, false, false })
	if err != nil {
		return err
	}
	return h.awaitLink()
}

// awaitLink waits until frames pass the link, unless another fault keeps it down.
func (h *Host) awaitLink() error {
	if !h.faults.connected(h.index) {
		return nil
	}
	return h.link.await()
}
