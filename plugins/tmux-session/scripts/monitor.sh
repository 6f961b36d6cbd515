# shellcheck shell=bash disable=SC2154,SC2015,SC2094,SC2016,SC2317,SC2329
# Runs a session's program on a terminal of tmux and records how it ends. It outlives SSH and the
# host's daemon. Needs state.sh, terminfo.sh and program.sh. It has these parts:
#   monitor   starts a tmux server that is this session's own, and tells whether the program runs
#   terminal  what tmux starts: the supervisor. It starts the program, waits, and records its end
#   fit       gives the window the size of the terminal of the client that writes
#   orphan    what is left to do where tmux ended before the program did
# The supervisor stays between tmux and the program, because tmux closes a terminal as soon as its own
# child has ended, with up to some kilobytes of output still unread in the kernel.

# No key does anything but reach the program: there is no prefix, no binding, no mouse mode. The
# program is not trusted, so it gets no way to the clipboard or past tmux to the user's terminal. Extended keys are off, for with them Escape
# and a key that arrive together would be told as one key, which means something else.
settings='
set -g exit-empty on
set -g escape-time 0
set -g focus-events on
set -g extended-keys off
set -g set-clipboard off
set -g buffer-limit 1000
set -g status off
set -g prefix None
set -g prefix2 None
set -g mouse off
set -g set-titles off
set -g history-limit 1000
set -g update-environment ""
set -g destroy-unattached off
set -g assume-paste-time 0
set -g remain-on-exit off
set -g allow-rename off
set -g automatic-rename off
set -g allow-passthrough off
unbind -a -T prefix
unbind -a -T root
set-hook -g client-attached "run -b \"exec bash ./script fit . tty 077 /\""
set-hook -g client-resized "run -b \"exec bash ./script fit . tty 077 /\""
'

# Ends tmux's output in the log. Its end is also that of the writing side of `.drained`.
readonly logger='cat >>stdout 3>.drained; [ -e .over ] || exec bash ./script orphan "$PWD" tty 077 /'

# $1: why the program never ran.
fail() {
    epoch_ms
    put ended-at "$epoch" error "$1" status failed
    printf 'failed\n'
    exit
}

monitor() {
    close_other_fds
    umask 077
    # The path of a socket has 108 bytes at most: it is always named from inside the directory.
    cd -- "$dir" || exit 1
    local columns rows message terminal here='' failure=''
    type -P tmux >/dev/null || fail "tmux is not installed in the guest"
    read -r columns rows <size
    known_terminal tmux-256color screen-256color screen
    mkfifo .gate .drained &&
        printf '%s' "$cwd" >.cwd &&
        printf '%s\nset -g default-terminal %s\n' "$settings" "$terminal" >tmux.conf || exit 1
    # For both, so that nobody waits for the other end when it opens one.
    exec 4<>.put/notice 6<>.gate

    # Bash looks for the terminal of its jobs when it starts with `-m`, and only then.
    # A size that is set by hand alone: that of a client that observes must not matter. tmux 3.3 dies
    # where it is told so before there is a window.
    unset TMUX TMUX_PANE
    message=$(tmux -u -S ./tmux.sock -f ./tmux.conf new-session -d -s main -x "$columns" -y "$rows" \
        bash -m ./script terminal "$dir" tty "$mask" / \; set-option -w window-size manual \; \
        pipe-pane -O "$logger" 2>&1 >/dev/null 4>&- 6>&-) || fail "tmux cannot be started: $message"

    epoch_ms
    put started-at "$epoch"
    printf 'go\n' >&6
    IFS= read -r -t 30 -u 4 here
    if [[ $here != here ]]; then
        tmux -S ./tmux.sock kill-server 2>/dev/null
        fail "the terminal's supervisor did not start"
    fi
    # The other end is closed by a successful exec, or brings why there was none.
    exec 5<.put/notice 4>&-
    IFS= read -r -d '' -n 4000 -u 5 failure
    [[ -z $failure ]] || fail "$failure"
    put status running
    printf 'running\n'
}

# Tells everything that still runs on the terminal that it is gone, as closing its window would.
hang_up() {
    local stat fields
    for stat in /proc/[0-9]*/stat; do
        { IFS= read -r -d '' fields; } 2>/dev/null <"$stat"
        read -r -a fields <<<"${fields##*) }"
        if [[ ${fields[3]:-} == "$$" && $stat != "/proc/$$/stat" ]]; then
            stat=${stat#/proc/}
            kill -s HUP -- "${stat%/stat}" && kill -s CONT -- "${stat%/stat}"
        fi
    done
}

# Whether the process $pid is stopped.
is_stopped() {
    local stat=''
    { IFS= read -r -d '' stat; } <"/proc/$pid/stat"
    [[ ${stat##*) } == T* ]]
}

terminal() {
    local code abandoned='' size=-1 before tries=0 fd
    set +m
    exec 3<&0 </dev/null >/dev/null 2>&1
    trap '' INT QUIT TERM PIPE ALRM USR1 USR2 TSTP TTIN TTOU
    # The terminal is gone before we have closed it: so is tmux.
    trap 'abandoned=1' HUP
    umask 077
    # The program may use tmux itself: this server is none of its business.
    unset TMUX TMUX_PANE
    IFS= read -r -d '' cwd <.cwd

    # Held for as long as this process lives: whoever waits for its end waits for the lock.
    exec 9>>monitor-lock
    flock -n 9 || exit 1
    started_of "$$" && put monitor-pid "$$ $started" || exit 1
    # The output must be logged before there is any.
    exec 6<.gate
    read -r -u 6 _ || exit 1
    exec 4<.drained

    # A foreground job: it has a process group of its own and the terminal.
    set -m
    (
        trap - HUP INT QUIT TERM PIPE ALRM USR1 USR2 TSTP TTIN TTOU
        exec 5>.put/notice
        printf 'here\n' >&5
        # A bash of its own: in a subshell a failed exec is the end, whatever `execfail` says.
        exec bash ./script program . tty "$mask" "$cwd"
    ) <&3 >&3 2>&3
    code=$?
    # Nobody could continue what Ctrl-Z stops, so it goes on at once. What SIGSTOP stopped goes on
    # when somebody continues it.
    while ((code >= 147 && code <= 150)) && lives pid; do
        while [[ $code == 147 && -z $abandoned ]] && is_stopped; do
            read -r -t 0.1 -u 4 _
        done
        fg %%
        code=$?
    done
    epoch_ms
    # The launch records the beginning first.
    read -r -u 6 _
    read_value status 32
    if [[ -n $abandoned ]]; then
        put ended-at "$epoch" error "the session's tmux server ended before the program did"
        announce
        return
    fi

    # Once nobody has the terminal open, tmux reads what is left, then closes it, tells its clients
    # and ends; and the log's writer does.
    trap '' HUP
    hang_up
    : >.over
    set +m
    for fd in /proc/self/fd/*; do
        # Bash itself has one, for its jobs.
        if [[ $fd -ef /proc/self/fd/3 && ${fd##*/} != 3 ]]; then
            fd=${fd##*/}
            exec {fd}>&-
        fi
    done
    exec 3>&-
    IFS= read -r -t 1 -u 4 _
    if (($? > 128)); then
        # Somebody keeps it open. What the program wrote has been read when the log has stood still,
        # or after two seconds.
        while before=$size size=$(stat -c %s stdout) && ((size != before && tries++ < 20)); do
            read -r -t 0.1 -u 4 _
        done
        tmux -S ./tmux.sock kill-server 4<&- 9>&-
        IFS= read -r -t 10 -u 4 _
    fi
    [[ $value != failed ]] || return
    put ended-at "$epoch" exit-code "$code" status exited
    # Whoever waits for the end does not wait for the disk.
    sync -- exit-code status . 4<&- 9>&- &
}

# In the hook itself, `if` with `run -C` makes the server of tmux 3.3 crash where the client has gone
# meanwhile, and its formats tell of the client that was active last, which may be an observer.
fit() {
    local read_only columns rows
    while read -r read_only columns rows; do
        [[ $read_only != 0 ]] || tmux -S ./tmux.sock resize-window -t =main: -x "$columns" -y "$rows"
    done < <(tmux -S ./tmux.sock list-clients -t =main \
        -F '#{client_readonly} #{client_width} #{client_height}' 2>/dev/null)
}

# Without its terminal the program ends, by force after five seconds.
orphan() {
    exec </dev/null >/dev/null 2>&1
    local tries=0 group
    [[ ! -e exit-code && ! -e .over ]] || return
    put error "the session's tmux server ended before the program did"
    exec 4<>.put/notice
    if lives pid; then
        group=$pid
        kill -s HUP -- "-$group"
        kill -s CONT -- "-$group"
        while lives pid && ((tries++ < 50)); do
            read -r -t 0.1 -u 4 _
        done
        ! lives pid || kill -s KILL -- "-$group"
    fi
    announce
}

"$banger__role"
exit
