# shellcheck shell=bash disable=SC2034,SC2154,SC2015,SC2094,SC2317,SC2329
# The part of a supervisor that every backend has. The backend's own part follows, with the function
# `monitor`, and calls the function that $1 names:
#   monitor    waits for the program; started by the launch, detached
#   program    what the monitor starts: prepares itself, then becomes the program. It tells on fd 5
#              why it could not; a successful exec closes that
#   keep_logs  see keeper.sh
set -u
banger__role=$1 dir=$2 kind=$3 mask=$4 cwd=$5

# Writes files of the session's directory: $1 is a name, $2 its content, and so on. Each is written
# whole or not at all, in this order. Whoever watches is told of a new status.
put() {
    local LC_ALL=C new=() changed=
    while [[ $# -ge 2 ]]; do
        put_aside "$1" "$2" || return 1
        new+=("$dir/.put/$1")
        [[ $1 != status ]] || changed=1
        shift 2
    done
    mv -f -t "$dir" -- "${new[@]}"
    local code=$?
    [[ -z $changed ]] || announce
    return "$code"
}

# On a full disk it writes over one of the files that the launch has laid up for that: in place, which
# takes no space.
put_aside() {
    local spare
    { printf '%s\n' "$2" >"$dir/.put/$1"; } 2>/dev/null && return
    for spare in "$dir"/.put/.spare.*; do
        { printf '%s\n' "$2" 1<>"$spare" && truncate -s "$((${#2} + 1))" -- "$spare" &&
            mv -T -f -- "$spare" "$dir/.put/$1"; } 2>/dev/null && return
    done
    return 1
}

# Tells whoever watches that the session's state has changed. A supervisor that is killed tells
# nothing.
announce() {
    read_value "$dir/backend" 64 || return
    { printf '%s\n' "${dir##*/}" >>"${dir%/*}/.changes-${value//\//}"; } 2>/dev/null
}

put_time() {
    epoch_ms
    put "$1" "$epoch"
}

# Closes all but the standard streams, bash's own script and what the arguments name.
close_other_fds() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        case " 0 1 2 255 $* " in
            *" $fd "*) ;;
            *) { exec {fd}>&-; } 2>/dev/null ;;
        esac
    done
}

# Tells the monitor why the program never ran.
give_up() {
    printf '%s' "$1" >&5
    exit 127
}

# What a bash sets or reads itself cannot pass through its variables unchanged.
is_special() {
    case $1 in
        banger__* | _ | BASH* | COMP_* | COPROC | DIRSTACK | EPOCH* | EUID | FUNCNAME | GLOBIGNORE | \
            GROUPS | HISTCMD | IFS | LINENO | MAPFILE | OLDPWD | OPT* | PIPESTATUS | POSIXLY_CORRECT | \
            PPID | PWD | RANDOM | READLINE_* | REPLY | SECONDS | SHELLOPTS | SHLVL | SRANDOM | UID)
            return 0
            ;;
    esac
    return 1
}

# Sets `banger__path` to the program's file, or gives up.
find_program() {
    local name=$1
    if [[ $name == */* ]]; then
        banger__path=$name
        [[ -e $name ]] || give_up "the program $name does not exist"
    else
        banger__path=$(type -P -- "$name") && [[ -n $banger__path ]] ||
            give_up "the program $name is not found in PATH"
    fi
    [[ ! -d $banger__path ]] || give_up "the program $name is a directory"
    [[ -x $banger__path ]] || give_up "the program $name is not executable"
}

# Whether a file is text without a `#!` line. Bash would run it inside itself.
is_bare_script() {
    local start=''
    LC_ALL=C IFS= read -r -d '' -n 80 start 2>/dev/null <"$1"
    local found_nul=$?
    case $start in
        '#!'* | $'\x7fELF'*) return 1 ;;
        *$'\n'*) return 0 ;;
    esac
    [[ ${#start} -ge 80 || $found_nul -ne 0 ]]
}

program() {
    started_of "$BASHPID" && put pid "$BASHPID $started" || give_up "the state directory cannot be written"
    close_other_fds 5
    # The program's PATH may lack these.
    hash env nice 2>/dev/null
    local banger__env=${BASH_CMDS[env]-env} banger__nice=${BASH_CMDS[nice]-nice}
    local banger__path banger__pair banger__command=() banger__environment=() banger__special=()
    mapfile -d '' -t banger__command <"$dir/command"
    mapfile -d '' -t banger__environment <"$dir/environment"
    [[ ${#banger__command[@]} -gt 0 ]] || give_up "the command is empty"
    { cd -- "$cwd"; } 2>/dev/null || give_up "the working directory $cwd cannot be entered"
    umask "$mask"
    set +u
    shopt -s execfail
    unset SHLVL OLDPWD
    # From here on any variable may have any value: only locals with the prefix are ours.
    for banger__pair in "${banger__environment[@]}"; do
        if is_special "${banger__pair%%=*}"; then
            banger__special+=("$banger__pair")
        else
            { export "${banger__pair?}"; } 2>/dev/null
        fi
    done
    find_program "${banger__command[0]}"
    if is_bare_script "$banger__path"; then
        banger__command=(/bin/sh "$banger__path" "${banger__command[@]:1}")
        banger__path=/bin/sh
    fi
    if [[ ${#banger__special[@]} -gt 0 ]]; then
        # `nice -n 0` changes nothing; without it, a program with a `=` in its path would be a variable.
        banger__command=("$banger__env" "${banger__special[@]}" "$banger__nice" -n 0 -- "$banger__path" "${banger__command[@]:1}")
    fi
    # The group makes bash keep its copy of the notice under a number that exec closes. Where exec
    # succeeds the monitor reads the end of file; where it fails we have it back.
    { exec -- "${banger__command[@]}"; } 5>&-
    give_up "the program $banger__path cannot be executed (exec gave $?; its standard error tells more)"
}
