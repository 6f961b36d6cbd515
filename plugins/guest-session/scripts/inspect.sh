# shellcheck shell=bash disable=SC2154
# Tells of the sessions of backend $2 below $1: those whose ids follow, or all. Prints fields that
# end in NUL: "banger-sessions-1", twelve fields for each session, "end". A session that does not exist
# is left out.
set -u
export LC_ALL=C
root=$1 backend=$2
shift 2
if [[ $# -eq 0 ]]; then
    shopt -s nullglob
    for dir in "$root"/*/; do
        dir=${dir%/}
        set -- "$@" "${dir##*/}"
    done
fi

# Sets `number` to what a file holds where that is a plain number, else to nothing.
read_number() {
    number=
    if read_value "$1" 24 && [[ $value =~ ^(0|[1-9][0-9]{0,17})$ ]]; then
        number=$value
    fi
}

# Sets `bytes` to a file's length.
length_of() {
    bytes=0
    [[ -s $1 && -f $1 ]] && bytes=$(stat -L -c %s -- "$1" 2>/dev/null)
    [[ $bytes =~ ^[0-9]+$ ]] || bytes=0
}

tell() {
    local dir=$root/$1 monitored=0 launching=0 alive=0
    local state='' status='' program='' code='' error='' out err out_start err_start begun ended

    # Who lives is asked first: what the dead have written stays as it is read afterwards.
    if same_boot "$dir"; then
        lives "$dir/monitor-pid" && monitored=1
        lives "$dir/launcher" && launching=1
        lives "$dir/pid" && alive=1
    fi
    read_value "$dir/pid" 64 && [[ $value =~ ^([1-9][0-9]{0,6})\ [0-9]+$ ]] && program=${BASH_REMATCH[1]}
    read_value "$dir/error" 1000 && error=$value
    read_value "$dir/status" 32 && status=$value
    read_number "$dir/exit-code"
    if [[ -n $number && $number -le 255 ]]; then
        code=$number
    fi

    if [[ -n $code ]]; then
        state=exited alive=0
    elif [[ $status == failed ]]; then
        state=failed alive=0 program=
    elif [[ $status == running ]]; then
        if [[ $monitored == 1 || $alive == 1 ]]; then
            state=running
        else
            state=lost
            error=${error:-"the supervisor ended before the program did, and nobody saw how it ended"}
        fi
    elif [[ $status == starting ]]; then
        if [[ $monitored == 1 || $launching == 1 ]]; then
            state=starting
        elif [[ $alive == 1 ]]; then
            state=running
        else
            state=failed program=
            error=${error:-"the launch was interrupted"}
        fi
    else
        state=lost
        error="the state directory is damaged: ${status:-it has no status}"
    fi

    length_of "$dir/stdout"
    out=$bytes
    length_of "$dir/stderr"
    err=$bytes
    read_number "$dir/started-at"
    begun=$number
    read_number "$dir/ended-at"
    ended=$number
    read_number "$dir/stdout-start"
    out_start=${number:-0}
    read_number "$dir/stderr-start"
    err_start=${number:-0}
    printf '%s\0' "$1" "$state" "$program" "$code" "$alive" "$error" "$out" "$err" \
        "$out_start" "$err_start" "$begun" "$ended"
}

printf 'banger-sessions-1\0'
for id in "$@"; do
    [[ ${#id} -le 32 && $id =~ ^[a-z0-9]+$ && -d $root/$id && ! -L $root/$id ]] || continue
    # A directory that lost its mark is told of where it was asked for by id.
    { read_value "$root/$id/backend" 64 && [[ $value != "$backend" ]]; } || tell "$id"
done
printf 'end\0'
