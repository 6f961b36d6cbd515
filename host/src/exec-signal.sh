# Sends the signal $2 to every process whose environment holds $1, a whole NAME=VALUE.
mark=$1 signal=$2
pids=()
for file in /proc/[0-9]*/environ; do
    pid=${file//[!0-9]/}
    [[ $pid != "$$" ]] || continue
    while IFS= read -r -d '' variable; do
        if [[ $variable == "$mark" ]]; then
            pids+=("$pid")
            break
        fi
    done 2>/dev/null <"$file"
done
if [[ ${#pids[@]} -gt 0 ]]; then
    kill -s "$signal" -- "${pids[@]}" 2>/dev/null
fi
exit 0
