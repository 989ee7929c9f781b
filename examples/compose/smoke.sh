#!/usr/bin/env bash
# It starts the example, injects each fault into each node, and checks the claims of README.md. It
# exits with 0 only if all of them hold. It removes everything at the end, whatever happens.
#
#   smoke.sh                   everything once for each node, then the procedures, in four minutes
#   smoke.sh -trials 20        only kill, stop, pause and disconnect, 20 times each, for figures
#   smoke.sh -up 20            only from nothing to the first answer with a certificate, 20 times
#   smoke.sh -idle             only the costs of an idle node
#   smoke.sh -procedures       only the procedures of docs/operations.md, in 80 seconds
#
# It needs bash, Go, and a Docker engine with compose: the plugin, or docker-compose. COMPOSE names
# another command. No image is pulled. The alerts are tried with the Prometheus of this machine, if
# there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

project=flotilla-smoke name=api.flotilla.test
addrs4=(198.18.0.101 198.18.0.102 198.18.0.103)
addrs6=(fd7a:f107:111a::101 fd7a:f107:111a::102 fd7a:f107:111a::103)
export COMPOSE_PROJECT_NAME=$project FLOTILLA_TARGET=prebuilt
export BALANCER_PORT=0 PROMETHEUS_PORT=0 PROMETHEUS_IMAGE=flotilla-example-prometheus # any ports
image=flotilla-example-tools:$FLOTILLA_TARGET
tmp=$(mktemp -d)
trials=0 ups=0 idle= only=

# COMPOSE may be two words.
if [[ -z ${COMPOSE:-} ]]; then
	if docker compose version >/dev/null 2>&1; then COMPOSE="docker compose"; else COMPOSE=docker-compose; fi
fi
read -ra compose <<<"$COMPOSE"

while (($#)); do
	case $1 in
	-trials) trials=$2 && shift 2 ;;
	-up) ups=$2 && shift 2 ;;
	-idle) idle=1 && shift ;;
	-procedures) only=1 && shift ;;
	*) echo "usage: smoke.sh [-trials NUMBER | -up NUMBER | -idle | -procedures]" >&2 && exit 2 ;;
	esac
done

now() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); } # milliseconds
begin=$(now)
say() { printf '%7.1f s  %s\n' "$(($(now) - begin))e-3" "$*"; }

# broken records a violation, and goes on: one fault does not hide the others.
faults=()
broken() {
	faults+=("$*")
	say "BROKEN: $*"
}

# quiet runs a command, and shows its output only if it failed.
quiet() {
	if ! "$@" >"$tmp/quiet" 2>&1; then
		cat "$tmp/quiet" >&2
		say "FAILED: $*"
		return 1
	fi
}

cleanup() {
	local code=$?
	trap - EXIT
	trap '' INT TERM
	if ((code != 0)); then
		"${compose[@]}" logs --tail=60 >"$tmp/logs" 2>&1 || true
		cat "$tmp/logs"
	fi
	exec 7>&- 8<&-
	docker rm -f $project-probe $project-ops >/dev/null 2>&1 || true
	"${compose[@]}" --profile balancer --profile client --profile observe --profile spare down -v --rmi all --remove-orphans -t 2 >/dev/null 2>&1 || true
	docker image prune -f --filter label=flotilla.example=compose >/dev/null 2>&1 || true # images that compose has built twice
	rm -rf "$tmp"
	if [[ -n ${made_dist:-} ]]; then rm -rf dist; fi
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# id prints the container of a service.
id() {
	docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1" \
		--filter "label=com.docker.compose.oneoff=False"
}

# first_answer waits until an address answers with a certificate of the authority. It asks from the
# machine of the authority.
first_answer() {
	local ca end=$((SECONDS + 120))
	while ((SECONDS < end)); do
		ca=$(id ca)
		if [[ -n $ca ]] && docker exec "$ca" /probe get -roots /trust/root.pem -at 198.18.0.101:443 https://$name/ >/dev/null 2>&1; then
			return 0
		fi
		sleep 0.05
	done
	return 1
}

# up starts everything, and sets answered to the milliseconds until the first answer.
up() {
	local start
	start=$(now)
	"${compose[@]}" up -d >"$tmp/up" 2>&1 &
	if ! first_answer; then
		cat "$tmp/up" >&2
		say "FAILED: no answer with a certificate of the authority within two minutes"
		exit 1
	fi
	answered=$(($(now) - start))
	wait $! || { cat "$tmp/up" >&2 && exit 1; }
}

# start_probe starts the measuring client, with a pipe to it (7) and from it (8).
start_probe() {
	mkfifo "$tmp/in" "$tmp/out"
	docker run -i --rm --name $project-probe --network ${project}_lan --dns 198.18.0.2 --cap-drop ALL --cap-add NET_RAW --read-only \
		-v ${project}_trust:/trust:ro $image /probe measure -roots /trust/root.pem $name <"$tmp/in" >"$tmp/out" 2>"$tmp/probe" &
	exec 7>"$tmp/in" 8<"$tmp/out"
}

# tell sends a command to the probe, and sets said to its answer.
tell() {
	echo "$1" >&7
	if ! read -r -t 60 said <&8; then
		cat "$tmp/probe" >&2
		say "FAILED: the probe does not answer"
		exit 1
	fi
}

# kernel_addrs prints the addresses in the kernel of a container, even of a paused one.
kernel_addrs() {
	local id=$1 pid
	pid=$(docker inspect -f '{{.State.Pid}}' "$id")
	((pid > 0)) || return 0
	if grep -q "$id" "/proc/$pid/cgroup" 2>/dev/null; then # the engine is on this machine
		awk '/\|--/ { a = $2 } /host LOCAL/ { print a }' "/proc/$pid/net/fib_trie" | sort -u
		sed -nE 's/^fd7af107111a0{16}0*([0-9a-f]+) .*/fd7a:f107:111a::\1/p' "/proc/$pid/net/if_inet6"
	else
		docker run --rm --network "container:$id" $image /probe addresses
	fi
}

# kernels checks the kernels of all nodes: each address must be in exactly one, within five seconds.
# They are read one after another, so an address that moves meanwhile may be seen twice or nowhere.
# That two never answer is seen on the link. A paused node does not count. It may still have
# addresses, but is muted.
kernels() {
	local what=$1 n a all wrong end=$((SECONDS + 5))
	while :; do
		all= wrong=
		for n in n1 n2 n3; do
			if [[ $n != "${paused:-}" ]]; then all+=$(kernel_addrs "$(id $n)")$'\n'; fi
		done
		for a in "${addrs4[@]}" "${addrs6[@]}"; do
			n=$(grep -cxF "$a" <<<"$all" || true)
			((n == 1)) || wrong+="; $a is in $n kernels"
		done
		[[ -n $wrong ]] || return 0
		((SECONDS < end)) || break
		sleep 0.1
	done
	broken "$what: ${wrong#; }"
}

declare -A outages # by kind of event, in milliseconds
serial=

# look waits until all addresses are steady, and reports what the clients have seen since the last
# look.
look() {
	local what=$1 until=${2:-steady} kind=${3:-} start=${4:-} word
	tell "$until"
	[[ $said == steady ]] || broken "$what: $said"
	local took=
	[[ -z $start ]] || took=", steady after $(($(now) - start)) ms"
	tell report
	local -A seen=()
	for word in $said; do seen[${word%%=*}]=${word#*=}; done
	kernels "$what"
	[[ ${seen[stations]} == 1 ]] || broken "$what: ${seen[stations]} stations answered for one address: $said"
	((seen[answers] * 10 > seen[questions] * 6)) ||
		broken "$what: only ${seen[answers]} of ${seen[questions]} questions on the link were answered"
	[[ ${seen[distrust]} == 0 ]] || broken "$what: a certificate of another authority was shown"
	serial=${serial:-${seen[serials]}}
	[[ ${seen[serials]} == "$serial" ]] || broken "$what: the certificate was $serial, and is now ${seen[serials]}"
	[[ -z $kind ]] || outages[$kind]+="${seen[outage]} "
	say "$(printf '%-14s outage %4d ms, %5d requests, %3d failed; owners %s; %d of %d questions on the link answered, never by two%s' \
		"$what" "${seen[outage]}" "${seen[asked]}" "${seen[failed]}" "$(cut -d, -f1-3 <<<"${seen[owners]}")" "${seen[answers]}" "${seen[questions]}" "$took")"
}

# events
address_of() { echo "198.18.0.1${1#n}"; }
hurt() { # kind node
	local c
	c=$(id "$2")
	case $1 in
	kill) quiet docker kill "$c" ;;
	stop)
		quiet docker stop -t 40 "$c"
		local code
		code=$(docker inspect -f '{{.State.ExitCode}}' "$c")
		((code == 0)) || broken "stop $2: the exit code is $code"
		;;
	pause) quiet docker pause "$c" && paused=$2 ;;
	disconnect) quiet docker network disconnect ${project}_lan "$c" ;;
	esac
}
mend() { # kind node
	local c
	c=$(id "$2")
	case $1 in
	kill | stop) quiet docker start "$c" ;;
	pause) quiet docker unpause "$c" && paused= ;;
	disconnect) quiet docker network connect --ip "$(address_of "$2")" --ip6 "fd7a:f107:111a::1${2#n}" ${project}_lan "$c" ;;
	esac
}
# suffer injects a fault into a node and ends it.
suffer() { # kind node
	hurt "$1" "$2"
	look "$1 $2" steady "$1"
	local start
	start=$(now)
	mend "$1" "$2"
	look "$2 is back" spread "back after $1" "$start"
}

# procedures runs what docs/operations.md describes, one after another on the same cluster. The
# container of the operator is there for all of them.
procedures() {
	local p start
	exec 7>&- 8<&- # the probe ends
	# shellcheck source=procedures/lib.sh
	(source procedures/lib.sh && trap - EXIT)
	for p in inspect rolling-restart move add-remove replace rotate-secret evict recover restore; do
		start=$(now)
		say "procedure $p"
		procedures/$p.sh || broken "the procedure $p failed"
		say "procedure $p: $(($(now) - start)) ms"
	done
}

# here says whether the engine is on this machine.
here() { grep -q "$(id n1)" "/proc/$(docker inspect -f '{{.State.Pid}}' "$(id n1)")/cgroup" 2>/dev/null; }

# health_ports checks who gets in at the health ports. The token is taken as README.md says.
health_ports() {
	local n page token
	token=$(docker cp "$(id n1)":/token/health - | tar -xO)
	for n in n1 n2 n3; do
		for page in "" status metrics; do
			get_is 401 "http://$(address_of $n):8081/$page"
			get_is 200 "http://any:$token@$(address_of $n):8081/$page"
		done
	done
	docker exec "$(id n1)" /api health >"$tmp/get" 2>&1 || broken "the health check of n1: $(<"$tmp/get")"
	say "the health ports show nothing without the token"
}
get_is() { # status url
	local got=200
	dist/probe get "$2" >/dev/null 2>"$tmp/get" || got=$(<"$tmp/get")
	[[ $got == "$1"* ]] || broken "${2/any:*@/}: $got, not $1"
}

# start_prometheus starts Prometheus, in an image that has nothing but the program of this machine
# and its libraries. It sets prometheus to where it answers.
start_prometheus() {
	local program files
	program=$(command -v prometheus) || true
	# The files that compose mounts are on this machine.
	if [[ -z $program ]] || ! here; then
		say "the machine of the engine has no Prometheus, so the alerts are not tried"
		return 0
	fi
	mapfile -t files < <({ echo "$program" && ldd "$program" 2>/dev/null | grep -o '/[^ ]*'; } | sort -u)
	tar -ch -C / --transform="s,^${program#/}\$,bin/prometheus," "${files[@]#/}" |
		docker import -c "LABEL flotilla.example=compose" - $PROMETHEUS_IMAGE >/dev/null
	quiet "${compose[@]}" --profile observe up -d --no-deps prometheus
	prometheus=http://$(docker port "$(id prometheus)" 9090/tcp)/api/v1
}
prom() { dist/probe get "$prometheus/$1" 2>&1; }
alerts() { prom alerts | grep -oE '"(alertname|state)":"[^"]*"' | cut -d'"' -f4 | paste -sd' '; }

# No alert, not even a pending one, while all nodes answer and all rules work. The nodes answered
# two seconds ago, so the rules have been evaluated with that.
no_alert() {
	[[ $(prom 'query?query=sum(up%20offset%202s)') == *',"3"]'* ]] &&
		(($(prom rules | grep -o '"health":"ok"' | wc -l) == $(grep -cE -- '- (alert|record):' ../../deploy/prometheus/alerts.yml))) &&
		[[ -z $(alerts) ]]
}
at_risk() { [[ " $(alerts) " == *" FlotillaMajorityAtRisk pending "* ]]; }

# expect waits for what Prometheus should say, if it is there.
expect() { # check what
	[[ -n $prometheus ]] || return 0
	local start
	start=$(now)
	if within 30 "$1"; then
		say "Prometheus: $2, after $(($(now) - start)) ms"
	else
		broken "Prometheus, not within 30 s: $2; alerts: $(alerts); $(prom targets)"
	fi
}

# within repeats a check until it holds.
within() { # seconds command...
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		((SECONDS < end)) || return 1
		sleep 0.2
	done
}

# figures prints median and maximum of the measurements.
figures() {
	local kind sorted
	for kind in "$@"; do
		[[ -n ${outages[$kind]:-} ]] || continue
		mapfile -t sorted < <(tr ' ' '\n' <<<"${outages[$kind]}" | grep . | sort -n)
		printf '   %-22s %3d trials: median %5d, maximum %5d ms\n' "$kind" ${#sorted[@]} "${sorted[(${#sorted[@]} - 1) / 2]}" "${sorted[-1]}"
	done
}

# ---

"${compose[@]}" version >/dev/null || { echo "there is no $COMPOSE" >&2 && exit 1; }
say "compose: $("${compose[@]}" version --short), engine: $(docker version -f '{{.Server.Version}}')"
docker rm -f $project-ops >/dev/null 2>&1 || true
"${compose[@]}" --profile balancer --profile client --profile observe --profile spare down -v --remove-orphans -t 2 >/dev/null 2>&1 || true # left by a killed run

[[ -d dist ]] || made_dist=1
(cd ../.. && CGO_ENABLED=0 GOOS=linux GOARCH=$(docker version -f '{{.Server.Arch}}') \
	go build -trimpath -ldflags="-s -w" -o examples/compose/dist/ ./cmd/flotilla ./examples/api ./examples/compose/...)
say "binaries are built"
quiet "${compose[@]}" build
size=$(docker image inspect -f '{{.Size}}' flotilla-example-api:$FLOTILLA_TARGET)
say "images are built; that of the server has $((size / 100000))e5 bytes"
((size <= 25000000)) || broken "the image has $size bytes"

if ((ups > 0)); then
	for ((i = 1; i <= ups; i++)); do
		up
		say "up $i: first answer with a certificate of the authority after $answered ms"
		outages[up]+="$answered "
		quiet "${compose[@]}" down -v -t 2
	done
	figures up
	exit 0
fi

up
say "up: the first answer with a certificate of the authority after $answered ms"
start_probe
look "no fault" spread

if [[ -n $idle ]]; then
	exec 7>&- 8<&- # without the probe
	sleep 10
	ids=$(id n1; id n2; id n3)
	docker stats --no-stream $ids
	# The figure of the engine is of one second. This is over half a minute, from the accounts of
	# the kernel.
	used() {
		local f
		for f in /sys/fs/cgroup/cpuacct/docker/$1/cpuacct.usage /sys/fs/cgroup/system.slice/docker-$1.scope/cpu.stat; do
			[[ ! -r $f ]] || awk '/^usage_usec/ { printf "%d", $2; exit } NF == 1 { printf "%d", $1 / 1000; exit }' "$f"
		done
	}
	declare -A before=()
	for c in $ids; do before[$c]=$(used "$c"); done
	sleep 30
	for c in $ids; do
		[[ -z ${before[$c]} ]] || printf '   %.12s  %.2f %% of a CPU, health checks included\n' "$c" "$((($(used "$c") - before[$c]) * 10 / 30))e-5"
	done
	exit 0
fi

if [[ -n $only ]]; then
	procedures
elif ((trials > 0)); then
	for ((i = 0; i < trials; i++)); do
		for kind in kill stop pause disconnect; do suffer $kind n$((i % 3 + 1)); done
	done
else
	# The host is also a client, if the engine is on it.
	"${compose[@]}" exec -T ca /ca root >"$tmp/root.pem"
	if here; then
		for a in "${addrs4[@]}" "${addrs6[@]/#/[}"; do
			[[ $a != \[* ]] || a+="]"
			dist/probe get -roots "$tmp/root.pem" -at "$a:443" https://$name/ >/dev/null 2>"$tmp/get" || broken "from the host, $a: $(<"$tmp/get")"
		done
		say "the host gets an answer at each address"
		health_ports
	fi
	for n in n1 n2 n3; do
		for kind in kill stop pause disconnect; do suffer $kind $n; done
		start=$(now)
		quiet docker restart -t 40 "$(id $n)"
		look "restart $n" spread restart "$start"
	done

	prometheus=
	start_prometheus
	quiet "${compose[@]}" --profile balancer up -d --no-deps balancer
	client() { docker run --rm --network ${project}_lan --ip 198.18.0.250 --cap-drop ALL -v ${project}_trust:/trust:ro $image /probe "$@"; }
	said=$(client count -roots /trust/root.pem -at 198.18.0.10:443 -n 30 https://$name/)
	[[ $said == "requests=30 failed=0 nodes=n1,n2,n3 clients=198.18.0.250" ]] || broken "through the balancer: $said"
	say "through the balancer: $said"
	expect no_alert "three nodes answer, and no alert is there"
	: >"$tmp/progress"
	client count -roots /trust/root.pem -at 198.18.0.10:443 -n 100 https://$name/ >"$tmp/count" 2>"$tmp/progress" &
	until grep -q "n2 answers" "$tmp/progress" || ! kill -0 $! 2>/dev/null; do sleep 0.02; done
	quiet docker kill "$(id n2)"
	wait $! || true
	cat "$tmp/progress" >&2
	said=$(<"$tmp/count")
	# A request that the node had when it died is lost, as with any balancer.
	[[ $said =~ failed=[01]\ nodes=n1,n2,n3 ]] || broken "through the balancer, while n2 was killed: $said"
	say "through the balancer, while n2 was killed: $said"
	expect at_risk "the alert FlotillaMajorityAtRisk is pending"
	quiet docker start "$(id n2)"
	look "n2 is back" spread
	expect no_alert "it has gone"
	procedures
fi

figures kill stop pause disconnect restart "back after kill" "back after stop" "back after pause" "back after disconnect"
if ((${#faults[@]} > 0)); then
	printf '   %d claims did NOT hold:\n' ${#faults[@]}
	printf '   %s\n' "${faults[@]}"
	exit 1
fi
say "everything held"
