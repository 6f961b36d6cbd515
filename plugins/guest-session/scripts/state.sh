# shellcheck shell=bash disable=SC2034
# Reads a session's state directory. Nothing in it is trusted: a damaged file reads as a missing
# one. These functions answer in variables, so that asking costs no process.
boot_now=

# $1: a file, $2: how many characters at most. Sets `value`, without the newline at its end. Neither
# a pipe, which would block, nor a link, which leads out of the directory, is read.
read_value() {
    value=
    [[ -f $1 && ! -L $1 ]] || return 1
    IFS= read -r -d '' -n "$2" value <"$1"
    value=${value%$'\n'}
}

# Sets `number` to what a file holds where that is a plain number, else to nothing.
read_number() {
    number=
    if read_value "$1" 24 && [[ $value =~ ^(0|[1-9][0-9]{0,17})$ ]]; then
        number=$value
    fi
}

# $1: a process id. Sets `started` to when it began, in ticks since the boot; fails where there
# is no such process, or only its corpse. Its name may hold spaces, newlines and parentheses: what
# follows the last ") " is numbers.
started_of() {
    local stat=() fields=() IFS=' '
    started=
    # Mapfile reads at once what read would read byte by byte.
    { mapfile -t stat <"/proc/$1/stat"; } 2>/dev/null
    [[ ${#stat[@]} -gt 0 ]] || return 1
    stat=("${stat[*]}")
    # shellcheck disable=SC2206 # nothing but letters and numbers
    fields=(${stat##*) })
    [[ ${fields[0]:-X} != [ZXx] && ${fields[19]:-} =~ ^[0-9]+$ ]] || return 1
    started=${fields[19]}
}

# $1: a file that holds "PID STARTED". Sets `pid`, and succeeds while that very process lives.
lives() {
    pid=
    read_value "$1" 64 || return 1
    [[ $value =~ ^([1-9][0-9]{0,6})\ ([0-9]{1,19})$ ]] || return 1
    pid=${BASH_REMATCH[1]}
    local began=${BASH_REMATCH[2]}
    started_of "$pid" && [[ $started == "$began" ]]
}

# $1: the state directory. Succeeds where its process ids are of this boot.
same_boot() {
    if [[ -z $boot_now ]]; then
        read_value /proc/sys/kernel/random/boot_id 64
        boot_now=$value
    fi
    read_value "$1/boot-id" 64 && [[ -n $boot_now && $value == "$boot_now" ]]
}

# Sets `now` to milliseconds since the boot. The time of day may jump, above all after a saved
# machine was restored.
now_ms() {
    local up
    read -r up _ </proc/uptime
    now=${up/./}0
}

# Sets `epoch` to milliseconds since 1970.
epoch_ms() {
    local digits=${EPOCHREALTIME//[!0-9]/}
    epoch=${digits%???}
}

# $1: a process, $2: one of its file descriptors. Sets `position` to how far it has come in that file.
position_of() {
    position=
    { read -r _ position; } 2>/dev/null <"/proc/$1/fdinfo/$2"
    [[ $position =~ ^[0-9]+$ ]]
}

# $1: an exit code, $2: a sentence for a person.
refuse() {
    printf '%s\n' "$2" >&2
    exit "$1"
}
