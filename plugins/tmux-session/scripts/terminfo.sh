# shellcheck shell=bash disable=SC2034
# Which terminals the guest can describe.

# Sets `terminal` to the first of the arguments that the guest knows, or else to the last.
known_terminal() {
    local dir hex
    for terminal in "$@"; do
        [[ $terminal =~ ^[A-Za-z0-9][A-Za-z0-9._+-]*$ && $terminal != dumb ]] || continue
        printf -v hex %x "'$terminal"
        for dir in "${HOME:-/}/.terminfo" /etc/terminfo /lib/terminfo /usr/share/terminfo /usr/lib/terminfo; do
            [[ ! -e $dir/${terminal:0:1}/$terminal && ! -e $dir/$hex/$terminal ]] || return 0
        done
    done
}
