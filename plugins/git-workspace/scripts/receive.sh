# shellcheck shell=bash disable=SC2015
# Makes a repository at $1 and fetches the commit $2 into it. Stdin and stdout are connected to
# `git upload-pack`, which must speak protocol version 0 (GIT_PROTOCOL unset): with 2 it would wait
# for an end of file that it cannot get while git itself holds the descriptors. $3 branch, $4 object format, $5 and $6 who commits, $7 depth: each may be
# empty. $8: "overwrite" or "keep". Exit code 3: something is at the path already.
path=${1%/} head=$2 branch=$3 format=$4 name=$5 email=$6 depth=$7 overwrite=$8
exec 3<&0 4>&1 </dev/null >&2

occupied() {
    [[ -L $path ]] && return 0
    if [[ -d $path ]]; then
        local entry
        for entry in "$path"/* "$path"/.[!.]* "$path"/..?*; do
            [[ -e $entry || -L $entry ]] && return 0
        done
        return 1
    fi
    [[ -e $path ]]
}

if [[ $overwrite != overwrite ]] && occupied; then
    refuse 3 "$path exists already and is not empty"
fi
mkdir -p -- "${path%/*}/" || exit 1
new=$(mktemp -d -- "$path.banger-XXXXXX") || exit 1
trap 'rm -rf -- "$new"' EXIT
trap 'exit 129' HUP
trap 'exit 143' TERM

# Beside the target, so that it comes there by a rename.
copy=$new/repository
plain_git init --quiet --template= --object-format="$format" --initial-branch="${branch:-main}" -- "$copy" || exit 1
cd -- "$copy" || exit 1

options=(--quiet --no-tags --no-recurse-submodules --update-shallow --no-auto-maintenance)
if [[ -n $depth ]]; then
    options+=(--depth "$depth")
fi
plain_git -c protocol.fd.allow=always fetch "${options[@]}" fd::3,4 "+$head:refs/banger/base" ||
    refuse 1 "the commit $head could not be fetched"
exec 3<&- 4>&-

[[ $(plain_git rev-parse --verify --quiet 'refs/banger/base^{commit}') == "$head" ]] ||
    refuse 1 "what was fetched is not the commit $head"
if [[ -n $branch ]]; then
    plain_git update-ref "refs/heads/$branch" "$head" &&
        plain_git symbolic-ref HEAD "refs/heads/$branch" || exit 1
else
    plain_git update-ref --no-deref HEAD "$head" || exit 1
fi
if [[ -n $name ]]; then
    plain_git config user.name "$name" || exit 1
fi
if [[ -n $email ]]; then
    plain_git config user.email "$email" || exit 1
fi
rm -f -- .git/FETCH_HEAD
cd / || exit 1

# From here on only two renames are left: no signal may come between them.
trap '' HUP INT TERM
if occupied; then
    [[ $overwrite == overwrite ]] || refuse 3 "$path exists already and is not empty"
    mv -T -- "$path" "$new/old" || refuse 1 "$path could not be moved away"
    if ! mv -T -- "$copy" "$path"; then
        if ! mv -T -- "$new/old" "$path"; then
            trap - EXIT
            refuse 1 "$path could not be replaced; what was there is $new/old now"
        fi
        refuse 1 "$path could not be replaced"
    fi
else
    mv -T -- "$copy" "$path" || refuse 1 "the working copy could not be moved to $path"
fi
