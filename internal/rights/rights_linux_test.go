package rights

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// An explanation names a capability as missing only if it is. It passes on any other error of the
// kernel.
func TestExplain(t *testing.T) {
	if os.Geteuid() != 0 || len(Missing(NetAdmin)) > 0 {
		t.Skip("this process has no capability that it could drop")
	}
	err := Explain("put 192.0.2.1 on eth0", syscall.EACCES, NetAdmin)
	if !errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "lacks") || !strings.Contains(err.Error(), "(EACCES)") {
		t.Errorf("with the capability: %v", err)
	}
	if err := Explain("put it", syscall.ENODEV, NetAdmin); err.Error() != "cannot put it: no such device" {
		t.Errorf("another error: %v", err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			done <- err
			return
		}
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &data[0]); err != nil {
			done <- err
			return
		}
		done <- Explain("put it", syscall.EPERM, NetAdmin, NetRaw)
	}()
	if err := <-done; !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "lacks the capability NET_ADMIN (") {
		t.Errorf("without the capability: %v", err)
	}
}
