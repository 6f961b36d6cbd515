# shellcheck shell=bash disable=SC2154
# Prints the log $2 of the session in $1 from byte $3 on; where $4 is "follow", until the session
# has ended, which is when its supervisor has recorded the end.
set -u
dir=$1 offset=$3
log=$dir/$2
[[ -f $log ]] || refuse 3 "the session has no $2"
size=$(stat -L -c %s -- "$log") || exit 1
# Beyond the end, tail would take the log for one that was cut, and print all of it.
skip=0
if ((offset > size)); then
    skip=$((offset - size)) offset=$size
fi
if [[ $4 == follow ]] && same_boot "$dir" && lives "$dir/monitor-pid"; then
    # Output comes by inotify, at once; the interval is only that of looking after the supervisor.
    # Tail looks at the log once more after it has seen the supervisor gone.
    follow() {
        tail -c "+$((offset + 1))" -f -s 0.1 --pid="$pid" -- "$log"
    }
    # Each job gets a process group of its own, to be ended whole.
    set -m
    exec 3<&0 </dev/null
    if ((skip == 0)); then
        follow 3<&- &
    else
        { follow | { head -c "$skip" >/dev/null && exec cat; }; } 3<&- &
    fi
    reader=$!
    # Who no longer reads ends our stdin. Without this an idle session would keep a tail for each
    # reader that it ever had.
    {
        while IFS= read -r -n 4096 _; do :; done
        kill -- "-$reader"
    } <&3 >/dev/null 2>&1 &
    watcher=$!
    set +m
    exec 3<&-
    wait "$reader"
    code=$?
    kill -- "-$watcher" 2>/dev/null
    exit "$code"
fi
exec tail -c "+$((offset + 1))" -- "$log"
