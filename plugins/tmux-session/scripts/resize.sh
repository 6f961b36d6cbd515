# shellcheck shell=bash disable=SC2154
# Gives the terminal of the session in $1 the size $2 x $3.
set -u
enter_session "$1"
clients=$(tmux -S ./tmux.sock list-clients -t =main -F '#{client_readonly}') || refuse 3 "the session has ended"
[[ $'\n'$clients$'\n' != *$'\n0\n'* ]] || refuse 3 "somebody is attached: their terminal gives the size"
message=$(tmux -S ./tmux.sock resize-window -t =main: -x "$2" -y "$3" 2>&1) && exit 0
lives pid || refuse 3 "the session has ended"
refuse 1 "the terminal cannot be $2x$3: $message"
