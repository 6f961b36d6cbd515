# shellcheck shell=bash disable=SC2154
# Prints the log $2 of the session in $1 from byte $3 on; where $4 is "follow", until the session
# has ended, which is when its supervisor has recorded the end.
set -u
dir=$1 which=$2 offset=$3
log=$dir/$which
[[ -f $log && ! -L $log ]] || refuse 3 "the session has no $which"
follow=
if [[ $4 == follow ]] && same_boot "$dir"; then
    if lives "$dir/monitor-pid"; then
        follow=supervisor
    elif lives "$dir/pid"; then
        # The supervisor was killed. Nobody records the end.
        follow=program
    fi
fi
registration=
trap leave EXIT
trap 'exit 143' TERM HUP INT
if ! enter "$dir" "$which" "$offset"; then
    refuse 5 "the session's $which is no longer kept from byte $offset on: it begins at byte $number"
fi

# Opens the log as fd 5 at `offset`. What is there already goes out by cat: its pieces are 16 times
# those of tail, which makes it twice as fast.
open_log() {
    exec 5<"$log" || exit 1
    ((offset == 0)) || dd bs=1 skip="$offset" count=0 status=none <&5 || exit 1
}

if [[ -z $follow ]]; then
    open_log
    [[ -n $registration ]] || exec cat <&5
    cat <&5 &
    reader=$!
    entered "$reader"
    wait "$reader"
    code=$?
else
    # Beyond the end, tail would take the log for one that was cut, and print all of it.
    skip=0
    size=$(exec stat -c %s -- "$log") || exit 1
    if ((offset > size)); then
        skip=$((offset - size)) offset=$size
    fi
    exec 3<&0 </dev/null
    if ((skip > 0)); then
        exec 4>&1 1> >(head -c "$skip" >/dev/null && exec cat >&4) 4>&-
        skipper=$!
    fi
    # Process 1 may leave a dead supervisor unburied for long, and tail would take that for alive. So
    # what tail looks after is a child of ours, which waits for the supervisor's lock.
    end=$pid
    if [[ $follow == supervisor ]]; then
        exec 8<"$dir/monitor-lock" || exit 1
        flock -s 8 3<&- >/dev/null &
        end=$!
        exec 8<&-
    fi
    # Output comes by inotify, at once; the interval is only that of looking after the end. Tail looks
    # at the log once more after it has seen that.
    {
        if ((size - offset > 1048576)); then
            mover=
            trap 'kill -s KILL "$mover"; exit 143' TERM
            trap 'kill -s KILL "$mover"; exit 138' USR1
            open_log
            cat <&5 3<&- &
            mover=$!
            wait "$mover" || exit
            position_of "$BASHPID" 5 || exit 1
            offset=$position
            exec 5<&-
            trap - TERM USR1
        fi
        exec tail -c "+$((offset + 1))" -f -s 0.1 --pid="$end" -- "$log"
    } 3<&- &
    reader=$!
    entered "$reader"
    waiter=
    [[ $follow == program ]] || waiter=$end
    # shellcheck disable=SC2086 # empty or a number
    end_with_stdin "$reader" $waiter >/dev/null 2>&1 &
    watcher=$!
    # shellcheck disable=SC2064 # their numbers as they are now
    trap "kill -s TERM $reader $watcher $waiter 2>/dev/null; leave" EXIT
    exec 3<&-
    wait "$reader"
    code=$?
    # The lock's waiter ends before, or it was killed, and more may come.
    if [[ $code -eq 0 && -n $waiter ]]; then
        wait "$waiter" || code=1
    fi
    if ((skip > 0)); then
        exec >&-
        wait "$skipper"
    fi
fi
case $code in
    # Ended by whoever watches stdin; by the log keeper.
    143) exit 0 ;;
    138) refuse 5 "it fell behind: the session wrote more to its $which than is kept before it was read" ;;
    *) exit "$code" ;;
esac
