#!/usr/bin/env bash
# It starts a systemd of its own, with these units, and checks what docs/deploy.md says about them. It
# needs root on Linux, Go, and Debian's systemd, nftables, iproute2 and curl. The systemd runs in
# namespaces, over a view of this machine's files: it changes nothing outside, and ends with this
# script.
set -euo pipefail
export LC_ALL=C # EPOCHREALTIME with a point
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

manager=
for f in /lib/systemd/systemd /usr/lib/systemd/systemd; do if [[ -x $f ]]; then manager=$f; fi; done
for p in unshare nsenter ip nft curl systemctl; do command -v "$p" >/dev/null || manager=; done
if [[ $(uname -s) != Linux || -z $manager ]] || ((EUID != 0)); then
	echo "systemd is not tried: that needs root on Linux, and systemd, util-linux, iproute2, nftables and curl"
	exit 0
fi

hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
if [[ ! -w ${hierarchy:-/nowhere} ]] || ! unshare --mount --pid --fork --net --uts --ipc --cgroup true 2>/dev/null; then
	echo "systemd is not tried: that needs namespaces, and a cgroup2 file system that is writable"
	exit 0
fi

work=$(mktemp -d /var/tmp/flotilla-systemd-XXXXXX)
cgroup=$hierarchy/flotilla-$$
outer=
begin=${EPOCHREALTIME/./}
faults=0
say() { printf '%7.1f s  %s\n' "$((${EPOCHREALTIME/./} - begin))e-6" "$*"; }
broken() {
	say "BROKEN: $*"
	faults=$((faults + 1))
}
cleanup() {
	local code=$?
	trap - EXIT
	if ((code != 0)) && [[ -n ${init:-} ]]; then in_there journalctl --no-pager -o short-monotonic -n 40 2>&1 || true; fi
	if [[ -n $outer ]]; then kill -KILL "$outer" 2>/dev/null || true; wait "$outer" 2>/dev/null || true; fi
	rm -rf "$work"
	for ((i = 0; i < 100; i++)); do # what was killed leaves it soon
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
		[[ -d $cgroup ]] || break
		sleep 0.05
	done
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# in_there runs a command where that systemd runs.
in_there() { nsenter -t "$init" -m -p -n -u -i -C -r -w -- "$@"; }
# await repeats a command until it succeeds.
await() { # seconds what command...
	local end=$((${EPOCHREALTIME/./} + $1 * 1000000)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ((${EPOCHREALTIME/./} > end)); then
			broken "not within time: $what"
			return 1
		fi
		sleep 0.02
	done
}

mkdir "$work/bin" "$work/view"
(GOWORK=off go build -o "$work/bin/" ./cmd/flotilla && cd examples && GOWORK=off go build -o "$work/bin/" ./api)
say "binaries are built"

# The view: this machine's files below, what is written in memory. Of units only ours are started.
cat >"$work/begin" <<'X'
set -eu
mount -t tmpfs tmpfs "$WORK/view"
mkdir "$WORK/view/up" "$WORK/view/wk" "$WORK/view/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$WORK/view/up,workdir=$WORK/view/wk" "$WORK/view/root"
cd "$WORK/view/root"
mount -t proc proc proc
mount -t sysfs sysfs sys -o ro
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs dev -o mode=755
for d in null zero full random urandom tty; do
	touch "dev/$d"
	mount --bind "/dev/$d" "dev/$d"
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
rm -rf etc/systemd/system etc/systemd/system.conf.d var/lib/private var/lib/api etc/api
mkdir -p etc/systemd/system/api.service.d etc/api etc/sysusers.d
cp "$WORK/bin/api" "$WORK/bin/flotilla" usr/local/bin/
printf '[Unit]\nDescription=Nothing\n' >etc/systemd/system/default.target
echo 11111111222233334444555566667777 >etc/machine-id
ip link set lo up
ip link add eth0 type veth peer name lan0
ip addr add 192.0.2.11/24 dev eth0
ip link set eth0 up
ip link set lan0 up
mkdir mnt/old
pivot_root . mnt/old
umount -l /mnt/old
mount --make-rshared /
exec env -i PATH="$PATH" container=flotilla "$MANAGER" --unit=default.target --log-level=notice --log-target=journal-or-kmsg
X

mkdir "$cgroup"
# shellcheck disable=SC2016
(echo 0 >"$cgroup/cgroup.procs" && exec env WORK="$work" MANAGER="$manager" \
	unshare --mount --pid --fork --kill-child --net --uts --ipc --cgroup --propagation private sh "$work/begin") >"$work/console" 2>&1 &
outer=$!

# The systemd is the only child of unshare.
# shellcheck disable=SC2016
await 10 "systemd starts" eval 'init=$(cat "/proc/$outer/task/$outer/children") && init=${init%% *} && [[ -n $init ]]' || exit 1
await 30 "systemd runs" eval '[[ $(in_there systemctl is-system-running) =~ running|degraded ]]' || { cat "$work/console" && exit 1; }
say "$("$manager" --version | head -1) runs"

# --- docs/deploy.md, on one machine. Its peer is a process without a unit.
put() { in_there sh -c "cat >$1"; }
put /etc/systemd/system/api.service <deploy/systemd/api.service
put /etc/systemd/system/api.socket <deploy/systemd/api.socket
put /etc/sysusers.d/api.conf <deploy/systemd/api.sysusers
in_there systemd-sysusers
in_there flotilla keygen -out /etc/api/secret
put /etc/api/env <<X
FLOTILLA_PEERS=192.0.2.11:7373,192.0.2.11:7374
FLOTILLA_EXPECT=2
FLOTILLA_ADVERTISE=192.0.2.11:7373
API_VIPS=192.0.2.100/24@eth0
X
put /etc/systemd/system/api.service.d/try.conf <<X
[Service]
WatchdogSec=2
TimeoutStartSec=3
X
in_there systemctl daemon-reload
said=$(in_there systemd-analyze verify /etc/systemd/system/api.service /etc/systemd/system/api.socket 2>&1 | grep '/api\.' || true)
[[ -z $said ]] || broken "systemd-analyze verify says: $said"
say "systemd-analyze security: $(in_there systemd-analyze security --no-pager api.service | tail -1)"

prop() { in_there systemctl show -P "$1" api.service; }
has_address() { [[ $(in_there ip -o -4 addr show dev eth0) == *192.0.2.100/* ]]; }
lacks_address() { ! has_address; }
status_is() { [[ $(prop StatusText) == $1 ]]; }
peer() {
	in_there setsid -f env FLOTILLA_DIR=/var/lib/peer FLOTILLA_SECRETS_FILE=/etc/api/secret FLOTILLA_PEERS=192.0.2.11:7373 FLOTILLA_EXPECT=2 \
		FLOTILLA_NAME=peer FLOTILLA_ADDR=192.0.2.11:7374 API_HTTPS_ADDR=127.0.0.1:8443 API_HTTP_ADDR=127.0.0.1:8080 API_HEALTH_ADDR=127.0.0.1:8082 \
		sh -c 'exec /usr/local/bin/api 2>/run/peer.log'
}
kill_peer() { in_there sh -c 'for p in /proc/[0-9]*; do if tr "\0" "\n" <$p/environ | grep -qx FLOTILLA_NAME=peer; then kill -KILL ${p#/proc/}; fi; done' 2>/dev/null || true; }

# A node that waits for its peers is not killed for that, and is ready when they are there.
in_there systemctl start --no-block api.service
sleep 5
[[ $(prop ActiveState) == activating ]] || broken "a node that waits for its peer is $(prop ActiveState), after its time to start"
say "waits for its peer, for longer than TimeoutStartSec: $(prop StatusText)"
peer
await 20 "the service is ready" eval '[[ $(prop ActiveState) == active ]]' || exit 1
await 5 "the address is there" has_address || exit 1
await 5 "the status text" status_is '*2 nodes, tolerates no failure' || true
say "active: $(prop StatusText)"
[[ $(prop NRestarts) == 0 ]] || broken "it has restarted $(prop NRestarts) times"
guards() { in_there sh -c 'cat /proc/[0-9]*/comm 2>/dev/null' | grep -cx flotilla-guard || true; }
[[ $(guards) == 1 ]] || broken "there are $(guards) guards"
[[ -n $(in_there nft list tables) ]] || broken "there is no table of nftables"
[[ $(in_there stat -c %U /var/lib/api) == api && $(in_there cat "/proc/$(prop MainPID)/status" | awk '/^Uid/ { print $2 }') != 0 ]] || broken "it runs as root"

# serves asks the program over the link, and refuses nothing but its own certificate.
serves() { [[ $(in_there curl -sk --max-time 10 --connect-to ::192.0.2.11: https://localhost/) == *servedBy* ]]; }
serves || broken "no answer"

# hurt does something to the program, and measures how long the address stays and until all is well again.
hurt() { # what signal
	local restarts start gone
	restarts=$(prop NRestarts) start=${EPOCHREALTIME/./}
	in_there kill "$2" "$(prop MainPID)"
	await 20 "$1: the address is gone" lacks_address || return 0
	gone=$(((${EPOCHREALTIME/./} - start) / 1000))
	await 20 "$1: another process" eval '(($(prop NRestarts) == restarts + 1))' || return 0
	await 20 "$1: ready again" eval '[[ $(prop ActiveState) == active ]] && has_address' || return 0
	say "$1: address gone after $gone ms, ready again with the address after $(((${EPOCHREALTIME/./} - start) / 1000)) ms"
}
hurt "killed" -KILL
hurt "stands still, until the watchdog ends it" -STOP
[[ $(in_there journalctl --no-pager -u api.service) == *"Watchdog timeout"* ]] || broken "the watchdog has done nothing"
await 5 "one guard is left" eval '[[ $(guards) == 1 ]]' || true

# Without a majority nothing is restarted, and what is started then serves.
restarts=$(prop NRestarts)
kill_peer
await 5 "the majority is lost" lacks_address || true
sleep 5
[[ $(prop NRestarts) == "$restarts" && $(prop ActiveState) == active ]] || broken "without a majority it was restarted"
say "without a majority for longer than WatchdogSec: $(prop ActiveState), $(prop StatusText)"
in_there systemctl restart --no-block api.service
await 10 "an answer without a majority" serves || true
say "restarted without a majority: it is $(prop ActiveState), and serves"
peer
await 20 "ready with a majority" eval '[[ $(prop ActiveState) == active ]] && has_address' || true

# Sockets of systemd, without the right to bind ports: no client is refused during a restart.
put /etc/systemd/system/api.service.d/sockets.conf <<X
[Service]
AmbientCapabilities=
AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW
CapabilityBoundingSet=
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW
X
in_there systemctl daemon-reload
in_there systemctl stop api.service
[[ $(prop Result) == success && $(prop ExecMainStatus) == 0 ]] || broken "stop: $(prop Result), exit code $(prop ExecMainStatus)"
lacks_address || broken "the address is there after the stop"
[[ $(guards) == 0 && -z $(in_there nft list tables | grep flotilla) ]] || broken "something is left after the stop"
in_there systemctl start api.socket
in_there systemctl start api.service || broken "no start with sockets"
(for ((i = 0; i < 10000; i++)); do
	serves || echo "request $i failed"
	[[ ! -e $work/enough ]] || break
done; echo "$((i + 1)) requests") >"$work/requests" &
client=$!
in_there systemctl restart api.service || broken "no restart with sockets"
await 10 "the address is back" has_address || true
touch "$work/enough"
wait "$client"
[[ $(wc -l <"$work/requests") == 1 ]] || broken "with sockets, during a restart: $(<"$work/requests")"
say "with sockets, during a restart: $(tail -1 "$work/requests"), none refused"
in_there systemctl stop api.socket api.service

((faults == 0)) || { say "$faults claims did NOT hold" && exit 1; }
say "everything held"
