# shellcheck shell=bash disable=SC2154,SC2015,SC2094,SC2317,SC2329
# Runs a session's program with pipes and records how it ends. It outlives SSH and the host's
# daemon. Needs state.sh and program.sh.

monitor() {
    close_other_fds
    trap '' HUP INT QUIT TERM PIPE ALRM USR2 TSTP TTIN TTOU
    # So it is asked to close the input (close-input.sh).
    local closed=
    trap 'exec 7>&-; closed=1' USR1
    umask 077
    cd /

    # Held for as long as this process lives: whoever waits for its end waits for the lock.
    exec 9>>"$dir/monitor-lock"
    flock -n 9 || exit 1
    started_of "$$" || exit 1
    epoch_ms
    put monitor-pid "$$ $started" started-at "$epoch" || exit 1

    # A FIFO opens at once where one end is open already. So each is opened for both first; then
    # this process keeps the end for writing alone, and a writer finds out when the program is gone.
    exec 4<>"$dir/.put/notice" 5>"$dir/.put/notice" 6<"$dir/.put/notice" 4>&-
    if [[ $kind == pipe ]]; then
        exec 4<>"$dir/stdin" 7>"$dir/stdin" 8<"$dir/stdin" 4>&-
    else
        exec 8</dev/null
    fi

    (
        trap - HUP INT QUIT TERM PIPE ALRM USR1 USR2 TSTP TTIN TTOU
        shopt -s execfail
        exec setsid bash "$dir/script" program "$dir" "$kind" "$mask" "$cwd"
        printf 'setsid cannot be run' >&5
    ) <&8 >>"$dir/stdout" 2>>"$dir/stderr" 4>&- 6<&- 7>&- 8<&- 9>&- &
    local child=$! failure code
    exec 5>&- 8<&-

    # The other end is closed by a successful exec, or brings why there was none.
    IFS= read -r -d '' -n 4000 -u 6 failure
    exec 6<&-
    if [[ -n $failure ]]; then
        epoch_ms
        put ended-at "$epoch" error "$failure" status failed
        printf 'failed\n'
        return
    fi
    put status running
    printf 'running\n'
    exec >/dev/null

    # The signal ends a wait early, and may come just as the program ends. Bash keeps the exit code,
    # also for another wait.
    while :; do
        closed=
        wait "$child"
        code=$?
        [[ -n $closed ]] || break
    done
    epoch_ms
    put ended-at "$epoch" exit-code "$code" status exited
    # Whoever waits for the end does not wait for the disk.
    sync -- "$dir/exit-code" "$dir/status" "$dir" 7>&- 9>&- </dev/null >/dev/null 2>&1 &
}

"$banger__role"
exit
