# shellcheck shell=bash
# Speaks to a session's tmux server. Needs state.sh.

# $1: the state directory. Goes there, for the socket's path must be short; refuses where the
# program does not run.
enter_session() {
    cd -- "$1" 2>/dev/null || refuse 3 "there is no such session"
    if ! same_boot . || ! lives pid || [[ ! -S tmux.sock ]]; then
        refuse 3 "the session is not running"
    fi
    # Ours may be run inside another.
    unset TMUX TMUX_PANE
}

# Types the file $1 as it is, line feeds also where $2 is `-r`; else they become carriage returns.
# It is one command for tmux: no other sender's bytes come between. What follows is put before it.
type_file() {
    "${@:3}" tmux -S ./tmux.sock load-buffer -b "in$$" - \; \
        paste-buffer -d ${2:+"$2"} -b "in$$" -t =main: <"$1" 2>/dev/null
}
