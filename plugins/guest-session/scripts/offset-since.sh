# shellcheck shell=bash disable=SC2154
# Prints where in the log $2 of the session in $1 begins what was written in the last $3 milliseconds.
set -u
dir=$1 log=$1/$2 age_ms=$3
[[ -f $log && ! -L $log ]] || refuse 3 "the session has no $2"
# The time since the boot does not jump. Of another boot only the time of day is known; where it has
# jumped, the earliest answer is taken.
if same_boot "$dir"; then
    now_ms
    pattern='^([0-9]{1,18}) [0-9]+ ([0-9]{1,18})$'
else
    epoch_ms
    now=$epoch
    pattern='^[0-9]+ ([0-9]{1,18}) ([0-9]{1,18})$'
fi
since=$((now - age_ms))
answer=0
times=()
if [[ -f $log-times && ! -L $log-times ]]; then
    mapfile -n 20000 -t times <"$log-times"
fi
# A line "SINCE-BOOT SINCE-1970 LENGTH" says: what came later begins at LENGTH or beyond.
for line in "${times[@]}"; do
    [[ $line =~ $pattern ]] || continue
    ((10#${BASH_REMATCH[1]} <= since)) || break
    answer=$((10#${BASH_REMATCH[2]}))
done
read_number "$log-start"
((answer >= ${number:-0})) || answer=$number
printf '%s\n' "$answer"
