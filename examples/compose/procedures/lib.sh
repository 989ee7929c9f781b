# What the procedures share. Each is a script that does to the running example what
# docs/operations.md says, shows every command with its output, and fails if the result is another
# one. "docker compose up" first; smoke.sh runs all of them. They need bash and a Docker engine.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

project=${COMPOSE_PROJECT_NAME:-compose}
image=flotilla-example-tools:${FLOTILLA_TARGET:-built}
name=api.flotilla.test
if [[ -z ${COMPOSE:-} ]]; then
	if docker compose version >/dev/null 2>&1; then COMPOSE="docker compose"; else COMPOSE=docker-compose; fi
fi
read -ra compose <<<"$COMPOSE"

# say explains the next step, and failed ends the procedure.
say() { printf '\n# %s\n' "$*"; }
failed() {
	printf 'FAILED: %s\n' "$*" >&2
	exit 1
}

# show prints a command and runs it. What runs on the directory of a node has that node's prompt.
show() {
	if [[ $1 == offline ]]; then printf '%s$ flotilla %s\n' "$2" "${*:3}"; else printf '$ %s\n' "$*"; fi
	"$@"
}

# id prints the container of a service.
id() {
	docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1" \
		--filter "label=com.docker.compose.oneoff=False"
}

# The operator's machine: a container with the command, the secret and a place for backups.
ops=$project-ops
begin_ops() {
	[[ $(docker inspect -f '{{.State.Running}}' "$ops" 2>/dev/null) != true ]] || return 0
	docker rm -f "$ops" >/dev/null 2>&1 || true # of a run that was cut off
	volume backups
	docker run -d --name "$ops" --network "${project}_lan" --dns 198.18.0.2 --cap-drop ALL --read-only -v "${project}_secret:/secret:ro" \
		-v "${project}_trust:/trust:ro" -v "${project}_backups:/backups" -e FLOTILLA_SECRETS_FILE=/secret/flotilla \
		-e FLOTILLA_PEERS=198.18.0.11:7373,198.18.0.12:7373,198.18.0.13:7373 "$image" /flotilla status -watch >/dev/null
	trap 'docker rm -f "$ops" >/dev/null' EXIT
}

# flotilla runs the operators' command there.
flotilla() { docker exec "$ops" /flotilla "$@"; }

# offline runs the operators' command on the directory of a stopped node, or beside a running one.
offline() { # node command...
	local node=$1
	shift
	docker run --rm --network "${project}_lan" --cap-drop ALL --read-only -v "${project}_$node:/data${mount:-}" -v "${project}_secret:/secret:ro" \
		-v "${project}_backups:/backups:ro" -e FLOTILLA_SECRETS_FILE=/secret/flotilla "$image" /flotilla "$@"
}

# await repeats a command without its output until it succeeds.
await() { # seconds what command...
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || failed "not within time: $what"
		sleep 0.2
	done
}

healthy() { await 60 "the cluster is healthy" flotilla health; }
members() { flotilla members | awk -v n="$1" -v s="$2" '$1 ~ n && $2 ~ s && $3 ~ /^(votes|leads|follows)$/ { print $1, $2, $3 }'; }
ready() { (($(members '^n[123]$' '^ready$' | grep -c .) == 3)); }
votes() { (($(members . '^ready$' | grep -cE ' (votes|leads)$') == $1)); }
is() { [[ $(members "^$1\$" .) == "$1 $2 "* ]]; } # in a state
leads() { [[ $(flotilla status) == *"leader $1 "* ]]; }
serves() { [[ $(serial "$1") == "$2" ]]; }

# container prints the name of a service's container. empty replaces its volume by an empty one.
container() { docker inspect -f '{{slice .Name 1}}' "$(id "$1")"; }
empty() {
	docker volume rm "${project}_$1" >/dev/null
	volume "$1"
}
volume() {
	docker volume create --label "com.docker.compose.project=$project" --label "com.docker.compose.volume=$1" "${project}_$1" >/dev/null
}

# answers prints what the node at an address answers, and serial the number of its certificate.
answers() { docker exec "$ops" /probe get -roots /trust/root.pem -at "$1:443" "https://$name/"; }
serial() { answers "$1" 2>&1 >/dev/null | sed -n 's/^certificate \([0-9a-f]*\),.*/\1/p' | grep .; }

# For procedures that replace the secret: begin_secrets makes the directory tmp, with the present
# secret in the file former. give replaces the file that all nodes and the operator read by the lines
# of files; yours is renamed into place by what distributes it. has asks whether a node has read it.
begin_secrets() {
	holder=$(docker create -v "${project}_secret:/secret" "$image" /flotilla version)
	tmp=$(mktemp -d)
	trap 'docker rm -f "$ops" "$holder" >/dev/null; rm -rf "$tmp"' EXIT
	docker cp -q "$holder:/secret/flotilla" "$tmp/former"
}
give() { # files...
	cat "$@" >"$tmp/flotilla"
	since=$(date +%s)
	tar -C "$tmp" --owner=0 --group=0 --mode=0600 -cf - flotilla | docker cp - "$holder:/secret"
}
has() { docker logs --since "$1" "$(container "$2")" 2>&1 | grep -q "the file of secrets has changed"; }

# refuses_former shows that nobody talks to a client that has the former secret alone.
refuses_former() {
	local refused
	printf '$ flotilla status -secret-file - <former\n'
	if refused=$(docker exec -i "$ops" /flotilla status -secret-file - <"$tmp/former" 2>&1); then failed "with the former secret: $refused"; fi
	echo "$refused"
	grep -q "another cluster secret" <<<"$refused" || failed "it says another reason"
}

begin_ops
