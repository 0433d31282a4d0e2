#!/usr/bin/env bash
# Runs in the Debian that check-packages.sh boots: the machine's own systemd starts the services as they are packaged.
set -uo pipefail
export LC_ALL=C

fail() {
    echo "failed: $*"
    journalctl --no-pager --output=cat --unit nightshift-agent --unit nightshift-coordinator | tail -n 40
    exit 1
}
property() { systemctl show "$1" --property "$2" --value; }

echo "-- the coordinator"
systemctl enable --quiet --now nightshift-coordinator || fail "the coordinator does not start"
[ "$(property nightshift-coordinator ActiveState)" = active ] || fail "the coordinator is not active"
property nightshift-coordinator StatusText
stat -c '%U %a %n' /var/lib/nightshift-coordinator

echo "-- the agent, not enrolled"
systemctl start nightshift-agent && fail "an agent that is not enrolled is ready"
property nightshift-agent ExecMainStatus
systemctl reset-failed nightshift-agent

echo "-- the agent, enrolled"
nightshift-agent service install --system --base /var/lib/nightshift-base --data /home/alex/notes \
    --assume mains,idle,unmetered,cool,free </dev/null || fail "the service is not installed"
nightshift --dir /var/lib/nightshift-coordinator device token --label here >/run/token || fail "no token"
runuser -u nightshift-agent -- nightshift-agent --config /etc/nightshift/agent.toml enroll --token - </run/token ||
    fail "not enrolled"
nightshift-agent service install --system </dev/null || fail "the service does not start"
nightshift-agent service status
[ "$(property nightshift-agent ActiveState)" = active ] || fail "the agent is not active"

echo "-- what it sees"
agent=$(property nightshift-agent MainPID)
# A process that is not dumpable is looked at from inside its namespaces.
inside() { nsenter --target "$agent" --mount -- "$@"; }
inside head -c 60 /home/alex/notes/a.jsonl || fail "it does not see the text"
inside ls -A /home
inside ls -A /home/alex
inside sh -c 'echo more >/home/alex/notes/a.jsonl' 2>/dev/null && fail "the text can be written"
inside sh -c 'touch /etc/x /usr/x /var/lib/x' 2>/dev/null && fail "the system can be written"
inside head -n 1 /proc/stat >/dev/null || fail "/proc/stat is not there"
[ "$(inside stat -c %X /dev/console 2>/dev/null || echo gone)" != gone ] || fail "terminals are not in sight"
grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapEff):' "/proc/$agent/status"
systemctl show nightshift-agent --property=Slice,LimitCORE,WatchdogUSec

echo "-- a watchdog that hears nothing"
kill -STOP "$agent"
mkdir -p /run/systemd/system/nightshift-coordinator.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/nightshift-coordinator.service.d/check.conf
systemctl daemon-reload
systemctl restart nightshift-coordinator || fail "the coordinator does not start again"
before=$(property nightshift-coordinator MainPID)
sleep 5
[ "$(property nightshift-coordinator MainPID)" = "$before" ] || fail "a coordinator that lives was started again"
kill -STOP "$before"
for _ in $(seq 30); do
    sleep 1
    now=$(property nightshift-coordinator MainPID)
    [ "$now" != "$before" ] && [ "$now" != 0 ] && break
done
[ "$now" != "$before" ] || fail "a coordinator that stands still was not started again"
kill -CONT "$agent"

echo "-- the end"
systemctl stop nightshift-agent nightshift-coordinator || fail "they do not stop"
for daemon in nightshift-agent nightshift-coordinator; do
    [ "$(property $daemon Result)" = success ] || fail "$daemon ended by $(property $daemon Result)"
done
nightshift-agent service uninstall --system || fail "the service is not removed"
echo 'all services ran'
