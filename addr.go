package flotilla

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

func machineName() string {
	name, err := os.Hostname()
	if err != nil {
		return "node"
	}
	return name
}

// checkHostPort checks the form of an address.
func checkHostPort(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}
