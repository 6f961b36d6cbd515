# shellcheck shell=bash disable=SC2154,SC2034
# Tells what is true of sessions below `root`: the fields that `inspect` prints. Needs state.sh.

# The ids of the arguments become `known`, and the lengths of their logs `lengths`, for one process
# altogether. It looks from within `root`, so that names hold nothing but ids.
measure() {
    local id name mode bytes logs=()
    declare -gA lengths=()
    known=()
    for id in "$@"; do
        [[ ${#id} -le 32 && $id =~ ^[a-z0-9]+$ && -d $root/$id && ! -L $root/$id ]] || continue
        known+=("$id")
        # An empty log need not be measured.
        [[ -s $root/$id/stdout ]] && logs+=("$id/stdout")
        [[ -s $root/$id/stderr ]] && logs+=("$id/stderr")
        # A command line has its limits.
        if [[ ${#logs[@]} -gt 10000 ]]; then
            measure_logs "${logs[@]}"
            logs=()
        fi
    done
    if [[ ${#logs[@]} -gt 0 ]]; then
        measure_logs "${logs[@]}"
    fi
}

measure_logs() {
    while read -r name mode bytes; do
        (((16#$mode & 8#170000) == 8#100000)) && lengths[$name]=$bytes
    done < <(cd -- "$root" && exec stat -c '%n %f %s' -- "$@" 2>/dev/null)
}

# $1: an id that `measure` knows. Prints twelve fields that end in NUL.
tell() {
    local dir=$root/$1 monitored=0 launching=0 alive=0
    local state='' status='' program='' code='' error='' out_start err_start begun ended

    # Who lives is asked first: what the dead have written stays as it is read afterwards.
    if same_boot "$dir"; then
        lives "$dir/monitor-pid" && monitored=1
        lives "$dir/pid" && alive=1
        [[ $monitored == 1 || $alive == 1 ]] || { lives "$dir/launcher" && launching=1; }
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

    read_number "$dir/started-at"
    begun=$number
    read_number "$dir/ended-at"
    ended=$number
    # It may have ended since its state was read.
    [[ $state != running && $state != starting ]] || ended=
    read_number "$dir/stdout-start"
    out_start=${number:-0}
    read_number "$dir/stderr-start"
    err_start=${number:-0}
    printf '%s\0' "$1" "$state" "$program" "$code" "$alive" "$error" "${lengths[$1/stdout]:-0}" \
        "${lengths[$1/stderr]:-0}" "$out_start" "$err_start" "$begun" "$ended"
}
