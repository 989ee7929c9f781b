//go:build !linux

package l2

import (
	"errors"
	"net"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
)

const allProtocols = 0

var errLinux = errors.New("announcements, probes and relays of addresses need the packet sockets of Linux: " +
	"on this system a floating address needs a Binder of your own")

func openSocket(*net.Interface, int, []bpf.Instruction) (*packet.Conn, error) { return nil, errLinux }

func hardwareAddr(*packet.Conn) (mac, error) { return mac{}, errLinux }

func passing(error) bool { return false }
