#!/bin/bash
# Runs assemble.sh in namespaces of its own, and makes sure that it dies with its caller.
#
# usage: outer.sh MODE SCRIPT [ARG...]
#   MODE user: a user namespace in which the caller is root; needs subuids (package uidmap).
#   MODE root: the caller is root already; only mounts and processes are kept apart.
#
# Standard input must be a pipe that the caller holds open and never writes to. Its end means that
# the caller is dead, also by kill -9, and takes the whole process group down. The caller must have
# made this script the leader of a process group.
set -eu

mode=$1
shift

case $mode in
user) set -- --user --map-root-user --map-auto --setuid 0 --setgid 0 -- "$@" ;;
root) set -- -- "$@" ;;
*)
    echo "outer.sh: unknown mode: $mode" >&2
    exit 64
    ;;
esac

exec 9<&0 </dev/null 2>&1
unshare --mount --pid --fork --kill-child --mount-proc "$@" 9<&- &
child=$!
{ read -r _ <&9 || kill -KILL 0; } &
watchdog=$!
exec 9<&-

status=0
wait "$child" || status=$?
kill "$watchdog" 2>/dev/null || true
exit "$status"
