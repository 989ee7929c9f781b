package flotilla

import (
	"net"
	"testing"
)

const proxyV1 = "PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"

// dialClient connects to addr until the test ends.
func dialClient(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
