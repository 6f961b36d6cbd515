# shellcheck shell=bash disable=SC2034,SC2154
# Reads a log whose beginning may be freed meanwhile (see keeper.sh). Needs state.sh.

# $1: the state directory, $2: one of its logs, $3: the first byte that is wanted. From here on the
# log is kept from there, until `leave`. Fails where it is no longer there; `number` then tells what is.
# It is registered first and looked at then: the log keeper does it the other way round.
enter() {
    registration=
    read_number "$1/log-limit"
    if [[ ${number:-0} != 0 && ! -e $1/.logs-kept ]] && started_of "$$"; then
        registration=$1/readers/$$.$started.$2 wanted=$3
        printf '%s\n' "$3" >"$registration" || registration=
    fi 2>/dev/null
    read_number "$1/$2-start"
    number=${number:-0}
    ((number <= $3))
}

# $1: the process that prints the log.
entered() {
    [[ -z $registration ]] || printf '%s\n' "$wanted $1" >"$registration"
} 2>/dev/null

leave() {
    [[ -z $registration ]] || rm -f -- "$registration"
    registration=
}

# Ends the processes "$@" once stdin, which is fd 3, has ended: who no longer reads ends our stdin.
# Without this an idle session would keep a reader for each that it ever had.
end_with_stdin() {
    while IFS= read -r -n 4096 -u 3 _; do :; done
    kill -s TERM "$@"
}
