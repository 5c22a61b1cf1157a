#!/usr/bin/env bash
# Set up a bare Debian or Ubuntu machine for the toolkit, then run its job or its tests.
#
# The machine is a laptop, WSL2 or an EC2 node; on a node, an unpacked bundle of `toolkit promote`
# stands where the checkout does. Writes to .venv in it, to $TOOLKIT_HOME and to the user's caches,
# nowhere else. Every step looks first whether its work is done, so that a repeated call goes
# straight to the job.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: bash localstack/bootstrap.sh COMMAND [ARGUMENTS]

Commands:
  run      set up, then `toolkit run ARGUMENTS` (default: the sample images)
  dev      set up what `pytest` needs, and start nothing
  test     set up what `pytest` needs, then run every test but those of the release
           (default: all of them; ARGUMENTS are pytest's, such as tests/unit or -k NAME)
  setup    set up what `toolkit run` needs, and start nothing
  node     set up an unpacked bundle of `toolkit promote`: its wheel, without the local stack;
           then `python -m toolkit.cloud.node ARGUMENTS`, if there are any

Environment:
  TOOLKIT_HOME    state of the local stack and logs   (default: ~/.local/state/fruits-toolkit)
  TOOLKIT_CACHE   downloads and built programs        (default: ~/.cache/fruits-toolkit)
  UV_PYTHON       the Python version to take, such as 3.12 (default: the system's if supported)

Exit codes: 0 done, 1 a step or the job failed, 2 the request is wrong or root rights are missing.
HELP
}

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$checkout/.venv
called_from=$PWD

step_number=0
step_count=7
# Filled in by the steps, for the line that tells of each one and for the report of a failure.
step_title='' # empty between steps
outcome=''
last_command=''
remedy=''
refused='' # set where the machine, not the step, is what must change
scratch='' # a folder that goes when the script ends

main() {
    local job=${1-}
    case $job in
        run | test) step_count=8 ;;
        setup | dev) ;;
        node) check_bundle && step_count=$(($# > 1 ? 5 : 4)) ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift

    prepare "$job"
    step 'System packages' install_system_packages
    step "uv $uv_version" install_uv
    step 'Python' make_environment
    step 'Python packages' install_packages
    if [[ $job == node ]]; then
        (($# == 0)) || run_node "$@"
        return
    fi
    step 'Jars for S3A' install_jars
    step "Archive of Spark's classes" archive_classes
    step "$(title_of_minio)" install_minio

    case $job in
        run)
            cd -- "$called_from" # where the user's relative paths hold
            hand_over "$venv/bin/toolkit" run "$@"
            ;;
        test)
            # Without paths pytest takes testpaths, which pyproject.toml sets to the inner loop.
            hand_over "$venv/bin/pytest" -o testpaths=tests --ignore=tests/release "$@"
            ;;
        dev) say_how_to_test ;;
    esac
}

say_how_to_test() {
    local from=''
    [[ $called_from == "$checkout" ]] || printf -v from 'cd %q && ' "$checkout"
    printf 'Ready. Run the tests: %s\n' "${from}source .venv/bin/activate && pytest" >&2
}

check_bundle() {
    [[ ! -f $checkout/manifest.json ]] || return 0
    cat >&2 <<TOLD
$checkout is no unpacked bundle: it has no manifest.json.
To set up a checkout, call: bash localstack/bootstrap.sh setup
TOLD
    exit 2
}

run_node() {
    cd -- "$called_from"
    # -P: the code is the wheel's, whatever lies in the folder that this is called from.
    hand_over "$venv/bin/python" -P -m toolkit.cloud.node "$@"
}

prepare() {
    # cloud-init starts programs without HOME.
    export HOME=${HOME:-$(getent passwd "$EUID" | cut -d: -f6)}
    local name
    for name in TOOLKIT_HOME TOOLKIT_CACHE; do
        [[ -z ${!name-} ]] || export "$name=$(realpath -m -- "${!name}")"
    done
    cache=${TOOLKIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fruits-toolkit}
    log=${TOOLKIT_HOME:-${XDG_STATE_HOME:-$HOME/.local/state}/fruits-toolkit}/logs/bootstrap.log
    mkdir -p "$cache" "${log%/*}"
    : >"$log"

    # pip and uv bring certificates of their own; behind a company's proxy only the system's will do.
    export PIP_CERT=${PIP_CERT:-${SSL_CERT_FILE:-$system_certificates}}
    export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    # uv keeps downloaded Pythons in the user's data folder otherwise.
    export UV_PYTHON_INSTALL_DIR=${UV_PYTHON_INSTALL_DIR:-$cache/python}

    # Says what a bundle consists of; of a checkout there is none.
    manifest=''
    [[ $1 != node ]] || manifest=manifest.json
    lock=requirements.lock
    # Once the test tools are in the environment, `run` leaves them there.
    if [[ $1 == dev || $1 == test || $(stamp_of_packages) == requirements-dev.lock* ]]; then
        lock=requirements-dev.lock
    fi
    uv_version=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$checkout/requirements.lock")
    uv=$cache/uv/$uv_version/uv
    python_range=$(sed -n 's/^requires-python = "\(.*\)"/\1/p' "$checkout/pyproject.toml")

    cd -- "$checkout"
    exec 3>&2 # steps write to the log; what the user must see goes here
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap finish EXIT
}

# --- 1: system packages --------------------------------------------------------------------------

system_certificates=/etc/ssl/certs/ca-certificates.crt
os_release=/etc/os-release

install_system_packages() {
    local packages=() java
    [[ -s $system_certificates ]] || packages+=(ca-certificates)
    find_host_python >/dev/null || packages+=(python3 python3-venv)
    java=$(find_java) || packages+=("$(java_package)")

    if ((${#packages[@]} == 0)); then
        outcome='all there'
    else
        apt_install "${packages[@]}"
        remedy='Install Java 17 or 21, name its folder in JAVA_HOME, and call this again.'
        last_command='looking for a Java from 17 to 23'
        java=$(find_java)
    fi
    # Spark takes the Java of JAVA_HOME, or the first in PATH: name the one found if it differs.
    if [[ -n ${JAVA_HOME-} || $java != "$(command -v java)" ]]; then
        export JAVA_HOME=${java%/bin/java}
    fi
}

apt_install() {
    local update=(apt-get update)
    local install=(apt-get install --yes --no-install-recommends "$@")
    last_command="${install[*]}"
    if ! command -v apt-get; then
        refused=yes
        remedy="This is no Debian or Ubuntu: install the like of $* and call this again."
        exit
    fi
    if [[ ${TOOLKIT_REHEARSAL:-/} != / ]]; then
        refused=yes
        remedy="A rehearsal installs nothing on this machine, and these are missing: $*
Install them, and rehearse again: sudo ${install[*]}"
        exit
    fi
    local as_root=()
    if ((EUID != 0)); then
        as_root=(sudo)
        if ! may_sudo; then
            refused=yes
            remedy="Root rights are missing: neither root nor sudo. Have root run this, then call again:
    ${update[*]} && ${install[*]}"
            exit
        fi
    fi
    remedy="Look at the log; if a package server could not be reached, check the network and call this again."
    attempt "${as_root[@]}" "${update[@]}"
    # A machine that has just booted may be installing its own updates: wait for dpkg's lock.
    attempt "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        "${install[@]}" -o DPkg::Lock::Timeout=300
    outcome="installed $*"
}

may_sudo() {
    command -v sudo || return 1
    sudo -n true && return
    # Ask for the password, where there is someone to ask.
    [[ -t 0 && -t 3 ]] && printf '\n' >&3 && sudo -v
}

find_host_python() {
    local python
    for python in python3 /usr/bin/python3; do
        # Debian ships venv and ensurepip in a package of their own.
        "$python" -c 'import ensurepip, venv' 2>/dev/null && echo "$python" && return
    done
    return 1
}

find_java() {
    local java version
    for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java)" /usr/lib/jvm/*/bin/java; do
        [[ -x $java ]] || continue
        version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
        # Spark 4 needs 17; Hadoop 3.4 calls Subject.getSubject, which Java 24 took away.
        ((${version:-0} >= 17 && ${version:-0} < 24)) && echo "$java" && return
    done
    return 1
}

java_package() {
    local ID='' VERSION_ID=''
    # shellcheck source=/dev/null
    source "$os_release"
    if [[ $ID == debian && ${VERSION_ID:-13} -ge 13 ]]; then
        echo openjdk-21-jre-headless
    else
        echo openjdk-17-jre-headless
    fi
}

# --- 2: uv ---------------------------------------------------------------------------------------

install_uv() {
    if [[ -x $uv ]]; then
        outcome='there already'
        return
    fi
    remedy='Check that the Python package index can be reached (pip config list), and call this again.'
    mkdir -p "${uv%/*}"
    scratch=$(mktemp -d "${uv%/*}/new.XXXXXX")
    attempt "$(find_host_python)" -m venv "$scratch/venv"
    # The lock's entry: the line of the package and its hashes, each but the last ending in a backslash.
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock >"$scratch/uv.lock"
    attempt "$scratch/venv/bin/python" -m pip install --require-hashes --requirement "$scratch/uv.lock"
    # uv is one self-contained file; moved into place only when complete.
    mv "$scratch/venv/bin/uv" "$uv"
}

# --- 3: the environment's Python -----------------------------------------------------------------

make_environment() {
    local wanted=${UV_PYTHON:-$python_range}
    if environment_fits "$wanted"; then
        outcome='there already'
        return
    fi
    if ! "$uv" python find --system --no-python-downloads "$wanted"; then
        remedy="No Python $python_range is installed, and none could be downloaded. Install one with your
    system's tools (for example: apt-get install python3.12), or name a mirror that you can reach in
    UV_PYTHON_INSTALL_MIRROR, and call this again."
        attempt "$uv" python install --no-bin "$wanted"
    fi
    remedy='Remove .venv and call this again.'
    attempt "$uv" venv --clear --no-project --python-preference system --no-python-downloads \
        --python "$wanted" "$venv"
    outcome=$("$venv/bin/python" --version)
}

environment_fits() {
    # A copied or moved checkout brings an environment along whose scripts start the old one's Python.
    grep -qsF "'$venv'" "$venv/bin/activate" &&
        [[ $(VIRTUAL_ENV=$venv "$uv" python find --no-project --no-python-downloads "$1") == "$venv"/* ]]
}

# --- 4: Python packages --------------------------------------------------------------------------

install_packages() {
    local stamp decisive=("$lock" pyproject.toml)
    # hatchling comes from the lock: an isolated build would fetch an unpinned one.
    local product=(--no-build-isolation --editable .)
    if [[ -n $manifest ]]; then
        verify_bundle
        decisive+=("$manifest")
        product=(--compile-bytecode "$wheel")
    fi
    stamp="$lock $(cat "${decisive[@]}" | sha256sum)"
    if [[ $(stamp_of_packages) == "$stamp" ]]; then
        outcome='up to date'
        return
    fi
    rm -f "$venv/packages.stamp"
    remedy='Check that the Python package index can be reached and the disk has 4 GB left, and call this again.'
    # The constraints hold setuptools, which builds pyspark's wheel, to the lock as well. Compiled
    # here, once: where PYTHONDONTWRITEBYTECODE is set, every process would compile all it imports.
    attempt "$uv" pip sync --python "$venv" --require-hashes --build-constraints "$lock" \
        --compile-bytecode "$lock"
    attempt "$uv" pip install --python "$venv" --no-deps "${product[@]}"
    echo "$stamp" >"$venv/packages.stamp"
}

# Compare all files of the bundle with its manifest, and find its wheel.
verify_bundle() {
    remedy='The bundle is damaged: unpack it anew into an empty folder, and call this again.'
    last_command="sha256sum --check of the files in $manifest"
    "$venv/bin/python" -c 'import json
for file in json.load(open("manifest.json"))["files"]:
    print(file["sha256"], file["path"], sep="  ")' | sha256sum --check --quiet --strict
    wheel=$("$venv/bin/python" -c 'import json; print(json.load(open("manifest.json"))["wheel"])')
}

stamp_of_packages() {
    cat "$venv/packages.stamp" 2>/dev/null || true
}

# --- 5 to 7: what the local stack needs ---------------------------------------------------------

install_jars() {
    outcome='ready'
    remedy='Do what the lines above say, and call this again.'
    attempt "$venv/bin/python" -m localstack.install jars
}

archive_classes() {
    outcome='ready'
    # All works without: nothing to stop for.
    attempt "$venv/bin/python" -m localstack.install classes ||
        outcome='not possible here (Spark starts three seconds later)'
}

install_minio() {
    outcome='ready'
    remedy='Do what the lines above say, and call this again: the build goes on where it stopped.'
    attempt "$venv/bin/python" -m localstack.install minio
}

title_of_minio() {
    if compgen -G "$cache/bin/minio-*" >/dev/null; then
        echo 'MinIO'
    else
        echo 'MinIO (compiled once for this user: 3 to 10 minutes)'
    fi
}

# --- running a step and telling of it ------------------------------------------------------------

step() {
    local started=${EPOCHREALTIME/[.,]/}
    step_number=$((step_number + 1))
    step_title=$1 outcome='done'
    printf '[%d/%d] %s … ' "$step_number" "$step_count" "$step_title" >&2
    echo "== $step_title" >>"$log"
    "$2" >>"$log" 2>&1
    step_title=''
    printf '%s, %s\n' "$outcome" "$(time_since "$started")" >&2
}

time_since() {
    local tenths=$(((${EPOCHREALTIME/[.,]/} - $1) / 100000))
    if ((tenths < 100)); then
        echo "$((tenths / 10)).$((tenths % 10)) s"
    elif ((tenths < 1200)); then
        echo "$((tenths / 10)) s"
    else
        echo "$((tenths / 600)) min $((tenths / 10 % 60)) s"
    fi
}

attempt() {
    printf -v last_command '%q ' "$@"
    echo "+ $last_command"
    "$@" 3>&-
}

hand_over() {
    finish # exec runs no traps
    step_number=$((step_number + 1))
    local command
    printf -v command ' %q' "${@/#"$checkout/"/}"
    printf '[%d/%d]%s\n' "$step_number" "$step_count" "$command" >&2
    exec "$@" 3>&-
}

finish() {
    local status=$?
    [[ -z $scratch ]] || rm -rf "$scratch"
    [[ -n $step_title ]] || return 0
    if ((status == 130 || status == 143)); then
        printf 'stopped.\nCall the same command again to go on from here.\n' >&3
        return
    fi
    if [[ -n $refused ]]; then
        printf 'not possible.\n%s\n' "$remedy" >&3
        exit 2
    fi
    {
        printf 'failed.\n'
        tail -n 12 "$log" | sed 's/^/    | /'
        printf 'Failed command: %s\nRemedy: %s\nLog: %s\n' "$last_command" "$remedy" "$log"
    } >&3
    exit 1 # not the code of the command: its 2 is not ours
}

# The tests source this file to take single functions out.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
fi
