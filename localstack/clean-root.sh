#!/usr/bin/env bash
# Run a command in a copy of this checkout on a freshly installed, bare Debian or Ubuntu.
#
# debootstrap makes the system once and it is kept in the user's cache; an overlay over it is a fresh
# machine within milliseconds. All mounts live in a namespace of their own, and all processes in
# another: both end with the command, whatever happens to it.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: bash localstack/clean-root.sh [OPTIONS] [--] COMMAND [ARGUMENTS]
       bash localstack/clean-root.sh [OPTIONS] --check

Runs COMMAND as root, with an empty HOME, in a copy of this checkout's files (committed or not,
without those that git ignores). Needs root, debootstrap and git.

  --check         run nothing: look whether this machine can, and say why not (exit code 2)
  --files FOLDER  copy FOLDER instead of the checkout, to where the checkout goes
  --suite SUITE   bookworm (default), trixie, noble, or another release of Debian or Ubuntu
  --mirror URL    where its packages are (default: debootstrap's; a Debian that lacks Ubuntu's
                  archive keys needs it for Ubuntu, and takes the packages unverified)

Example: bash localstack/clean-root.sh bash localstack/bootstrap.sh run
HELP
}

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
suite=bookworm
mirror=''
files='' # instead of the checkout's
machine='' # process id of the fresh machine

main() {
    local only_check=''
    while (($#)); do
        case $1 in
            --check) only_check=yes && shift ;;
            --files) files=${2:?"--files needs a folder"} && shift 2 ;;
            --suite) suite=${2:?"--suite needs a value, such as bookworm"} && shift 2 ;;
            --mirror) mirror=${2:?"--mirror needs a value"} && shift 2 ;;
            -h | --help) usage && exit 0 ;;
            --) shift && break ;;
            -*) usage >&2 && exit 2 ;;
            *) break ;;
        esac
    done
    [[ -n $only_check ]] || (($#)) || { usage >&2 && exit 2; }
    check_requirements

    local systems=${TOOLKIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fruits-toolkit}/clean-root
    local base=$systems/$suite
    mkdir -p "$systems"
    work=$(mktemp -d "$systems/run.XXXXXX")
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap end_machine EXIT
    mkdir "$work/changes" "$work/overlay" "$work/root"
    check_overlay
    [[ -z $only_check ]] || exit 0

    [[ -d $base ]] || install_system "$base"
    copy_files "$work/changes/opt/fruits-toolkit"
    copy_network_settings "$work/changes"

    export -f enter
    # In the background, as unshare heeds no signals while it waits; we do.
    unshare --mount --uts --ipc --pid --fork --kill-child \
        bash -euc 'enter "$@"' enter "$base" "$work" "$@" <&0 &
    machine=$!
    local status=0
    wait "$machine" || status=$?
    machine=''
    return "$status"
}

end_machine() {
    if [[ -n $machine ]]; then
        # --kill-child: its first process dies with it, and with that one all others.
        kill -KILL "$machine"
        wait "$machine" 2>/dev/null || true
    fi
    # The last processes may still be writing while they die.
    rm -rf "$work" 2>/dev/null || { sleep 1 && rm -rf "$work"; }
}

check_requirements() {
    ((EUID == 0)) || { echo 'clean-root.sh mounts file systems: run it as root.' >&2 && exit 2; }
    local tool tools=(debootstrap)
    if [[ -z $files ]]; then
        tools+=(git)
    elif [[ ! -d $files ]]; then
        echo "$files is no folder." >&2 && exit 2
    fi
    for tool in "${tools[@]}"; do
        command -v "$tool" >/dev/null && continue
        echo "clean-root.sh needs $tool: apt-get install $tool" >&2
        exit 2
    done
    if [[ -z $files && ! -e $checkout/.git ]]; then
        echo "$checkout is no git clone, whose files could be listed: see --files." >&2 && exit 2
    fi
}

# Containers may forbid mounts, and an overlay cannot lie on another one.
check_overlay() {
    mkdir "$work/lower"
    unshare --mount --pid --fork mount -t overlay overlay \
        -o "lowerdir=$work/lower,upperdir=$work/changes,workdir=$work/overlay" "$work/root" || {
        echo "clean-root.sh cannot mount an overlay in ${work%/*}." >&2
        exit 2
    }
}

install_system() {
    echo "Installing $suite with debootstrap (about a minute, once) …" >&2
    local scripts=/usr/share/debootstrap/scripts options=(--variant=minbase) script
    # A debootstrap older than the Ubuntu does not know it; since gutsy all are installed alike.
    script=$scripts/$suite
    [[ -e $script ]] || script=$scripts/gutsy
    # Ubuntu keeps Java and Python's venv in universe, which its own installers turn on.
    [[ $(realpath "$script") != */gutsy ]] || options+=("--components=main,universe")
    # In a mount namespace, so that no /proc stays mounted in an unfinished system.
    if ! unshare --mount \
        debootstrap "${options[@]}" "$suite" "$work/system" "$mirror" "$script" >"$1.log" 2>&1; then
        tail -n 5 "$1.log" >&2
        echo "debootstrap failed; its log is $1.log" >&2
        exit 1
    fi
    mv "$work/system" "$1"
}

copy_files() {
    mkdir -p "$1"
    if [[ -n $files ]]; then
        cp -R -- "$files/." "$1"
        return
    fi
    # Tracked files and new ones, less those deleted in the working tree.
    git -C "$checkout" ls-files -z --cached --others --exclude-standard |
        (cd "$checkout" && while IFS= read -r -d '' file; do
            [[ ! -e $file ]] || printf '%s\0' "$file"
        done) |
        tar -C "$checkout" --null --files-from=- --create |
        tar -C "$1" --extract --no-same-owner
}

# What this machine needs to reach the package servers, the fresh one needs as well.
copy_network_settings() {
    mkdir -p "$1/etc" "$1/usr/local/share/ca-certificates"
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
    # Taken in by the ca-certificates package when bootstrap.sh installs it.
    if [[ -d /usr/local/share/ca-certificates ]]; then
        find /usr/local/share/ca-certificates -name '*.crt' \
            -exec cp -t "$1/usr/local/share/ca-certificates" {} +
    fi
}

# In the new namespaces, as their first process: mount the fresh machine and run the command in it.
enter() {
    local base=$1 work=$2
    shift 2
    local root=$work/root
    mount -t overlay overlay \
        -o "lowerdir=$base,upperdir=$work/changes,workdir=$work/overlay" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind --make-private /sys "$root/sys"
    mount --rbind --make-private /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/dev/shm"
    # A shell starts its background processes with these signals ignored.
    env --default-signal=INT,QUIT --ignore-environment --chdir="$root" \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
        ${http_proxy+http_proxy="$http_proxy"} ${https_proxy+https_proxy="$https_proxy"} \
        ${no_proxy+no_proxy="$no_proxy"} \
        chroot "$root" env --chdir=/opt/fruits-toolkit "$@"
}

main "$@"
