#!/bin/bash
# The first program on a promotion's node: fetch the bundle, check it, hand over to its bootstrap.sh.
#
# EC2 runs it as user-data, as root, once. A rehearsal runs the same bytes on another machine:
# TOOLKIT_REHEARSAL names the folder there that stands for `/`, AWS_ENDPOINT_URL_S3 and
# AWS_EC2_METADATA_SERVICE_ENDPOINT lead to the stand-ins. Whatever happens: the end of the log goes
# to the bucket, then the machine goes off, unless this is a rehearsal.
set -euo pipefail

# Filled in by toolkit/cloud/node/user_data.py.
bucket=@bucket@
region=@region@
promotion=@promotion@
bundle=@bundle@   # SHA-256 of its manifest
minutes=@minutes@ # after which the machine goes off, whatever runs

# Before anything that can fail or hang.
[[ -n ${TOOLKIT_REHEARSAL-} ]] || shutdown -h "+$minutes" || shutdown -h now || poweroff -f

export HOME=${HOME:-/root} # cloud-init sets none
store=${AWS_ENDPOINT_URL_S3:-https://s3.$region.amazonaws.com}
metadata_service=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
root=${TOOLKIT_REHEARSAL-}
root=${root%/}
home=$root@home@
folder=@promotions@/$promotion # in the bucket

# Everything that is said on this node, here, in bootstrap.sh and in Python, goes to this file. What
# lies beside it is explained in toolkit/cloud/node/log.py, which reads and writes it as well.
log=$root/var/log/fruits-toolkit.log
chunk_bytes=@chunk_bytes@
# How often something is tried, with pauses of 1, 2, 4 ... seconds: two minutes, which an instance
# profile may take to reach a new instance, and its policy to be in force.
attempts=8
node=unknown
index=0 # among the nodes; the first one runs Spark's master and reports
began=$(date -u +%Y-%m-%dT%H:%M:%S+00:00)
doing='starting'
reporter='' bootstrap='' # process ids
key_id='' secret='' session_token=''

main() {
    doing='looking for curl and certificates'
    command -v curl >/dev/null && [[ -s /etc/ssl/certs/ca-certificates.crt ]] || install_curl
    doing='asking for the credentials of the instance profile'
    retried load_credentials
    node=$(retried metadata instance-id)
    index=$(retried metadata ami-launch-index)
    report_boot 3>&- &
    reporter=$!

    doing='fetching the bundle'
    mkdir -p "$home"
    fetch_bundle
    doing='setting up the machine'
    say 'the bundle is there and as it should be: bootstrap.sh takes over'
    # In the background, as a shell heeds no signals while it waits for a program in the foreground;
    # in a session of its own, which can be ended as a whole.
    setsid bash "$home/localstack/bootstrap.sh" node --promotion "s3://$bucket/$folder/" \
        --region "$region" --node "$node" --index "$index" --log "$log" --bundle "$home" 3>&- &
    bootstrap=$!
    wait "$bootstrap"
}

say() {
    printf '%(%H:%M:%S)T boot: %s\n' -1 "$*"
}

# --- the machine and its identity ----------------------------------------------------------------

install_curl() {
    retried apt-get update
    # A machine that has just booted may be installing its own updates: wait for dpkg's lock.
    DEBIAN_FRONTEND=noninteractive retried apt-get install --yes --no-install-recommends \
        -o DPkg::Lock::Timeout=300 curl ca-certificates
}

retried() { # COMMAND: until it succeeds
    local attempt
    for ((attempt = 1; ; attempt++)); do
        "$@" && return
        ((attempt < attempts)) || break
        sleep $((2 ** (attempt - 1)))
    done
    say "$1 failed $attempts times" >&2
    return 1
}

ask_metadata() {
    curl --disable --silent --show-error --fail --noproxy '*' --connect-timeout 2 --max-time 10 "$@"
}

metadata() { # PATH: by IMDSv2, which wants a token first
    local token
    token=$(ask_metadata --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
        "$metadata_service/latest/api/token") || return
    printf 'header = "X-aws-ec2-metadata-token: %s"\n' "$token" |
        ask_metadata --config - "$metadata_service/latest/meta-data/$1"
}

load_credentials() {
    local role answer
    role=$(metadata iam/security-credentials/) || return
    answer=$(metadata "iam/security-credentials/$role") || return
    key_id=$(member AccessKeyId "$answer")
    secret=$(member SecretAccessKey "$answer")
    session_token=$(member Token "$answer")
    [[ -n $key_id && -n $secret && -n $session_token ]]
}

member() { # NAME JSON: of a flat object of strings
    printf '%s\n' "$2" | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"
}

# --- the bucket ----------------------------------------------------------------------------------

get() { # KEY FILE
    transfer "$1" --output "$2"
}

put() { # FILE KEY
    transfer "$2" --output /dev/null --upload-file "$1"
}

transfer() { # KEY CURL-OPTIONS: with retries where another attempt may help
    local attempt status=''
    [[ -n $key_id ]] || load_credentials || return
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        ((attempt == 1)) || sleep $((2 ** (attempt - 2)))
        status=$(request "$@") || true
        case $status in
            200) return ;;
            301 | 404) break ;; # another region, no such object: for good
            # Expired, or not in force yet.
            400 | 403) load_credentials || true ;;
        esac
    done
    say "s3://$bucket/$1: no answer but ${status:-none} (the status of HTTP; 000: not reached)" >&2
    return 1
}

request() { # KEY CURL-OPTIONS: one signed request; the status goes to stdout
    local key=$1
    shift
    # printf is a builtin: through this pipe, the secret is in no file and on no command line.
    printf 'user = "%s:%s"\nheader = "X-Amz-Security-Token: %s"\n' "$key_id" "$secret" "$session_token" |
        curl --disable --config - --silent --show-error --aws-sigv4 "aws:amz:$region:s3" \
            --connect-timeout 10 --speed-limit 1000 --speed-time 30 --write-out '%{http_code}' \
            "$@" "${store%/}/$bucket/$key"
}

fetch_bundle() {
    local manifest=$home/@manifest@ path sha256
    get "@bundles@/$bundle/@manifest@" "$manifest"
    check "$manifest" "$bundle"
    while IFS=$'\t' read -r path sha256; do
        if [[ $path == /* || /$path/ == */../* || $path =~ [^A-Za-z0-9._/-] ]]; then
            say "the manifest names a file that can't be one: $path"
            return 1
        fi
        mkdir -p "$(dirname "$home/$path")"
        get "@bundles@/$sha256/${path##*/}" "$home/$path"
        check "$home/$path" "$sha256"
    done < <(listed "$manifest")
}

listed() { # MANIFEST: path and SHA-256 of each file; it is written with one member a line
    sed -n 's/^ *"path": "\(.*\)",$/\1/p; s/^ *"sha256": "\([0-9a-f]*\)",$/\1/p' "$1" | paste - -
}

check() { # FILE SHA-256
    sha256sum --check --status <<<"$2  $1" && return
    say "$1 is damaged: its SHA-256 is not $2"
    return 1
}

# --- what the outside sees -----------------------------------------------------------------------

report_boot() { # in the background, until Python has taken over
    local ending=''
    trap 'ending=yes' TERM # not in the midst of something
    set +e
    attempts=1
    while [[ ! -e $log.taken-over ]]; do
        ship_log
        locked report booting
        [[ -z $ending ]] || break
        sleep 10 &
        wait $!
        [[ -z $ending ]] || break
    done
}

locked() { # COMMAND: Python and the two shells write one at a time
    (flock 9 && "$@") 9>"$log.lock"
}

report() { # PHASE [ERROR]: write status.json, unless that is Python's or another node's business
    ((index == 0)) || return 0
    [[ $1 != booting || ! -e $log.taken-over ]] && [[ ! -e $log.final ]] || return 0
    local error=null
    [[ -z ${2-} ]] || error="\"$2\""
    if [[ -e $log.taken-over ]] && get "$folder/status.json" "$log.status"; then
        # What Python has said stands, with one member a line; only how it ended is not in it.
        sed -i "s/^  \"phase\": .*/  \"phase\": \"$1\",/; s/^  \"error\": .*/  \"error\": $error,/" \
            "$log.status"
    else
        printf '{"phase": "%s", "node": "%s", "began_at": "%s", "heartbeat": "%s", "error": %s,
"stages": [{"title": "@stage@"}]}\n' "$1" "$node" "$began" "$(now)" "$error" >"$log.status"
    fi
    put "$log.status" "$folder/status.json"
}

now() {
    date -u +%Y-%m-%dT%H:%M:%S+00:00
}

ship_log() {
    while locked ship_chunk; do :; done
}

ship_chunk() { # put the next part of the log into the bucket; fails where there is none
    local from=0 to=0 number=0
    [[ ! -e $log.shipped ]] || read -r from to number <"$log.shipped"
    if ((from == to)); then # else somebody was stopped while shipping: once more, the very same
        to=$(stat --format %s "$log")
        ((to > from)) || return
        ((to - from <= chunk_bytes)) || to=$((from + chunk_bytes))
        remember "$from" "$to" "$number"
    fi
    head -c "$to" "$log" | tail -c "+$((from + 1))" >"$log.chunk"
    put "$log.chunk" "$folder/log/$node/$(printf '%08d' "$number")" || return
    remember "$to" "$to" $((number + 1))
}

remember() { # FROM TO NUMBER
    echo "$@" >"$log.shipped.new"
    mv "$log.shipped.new" "$log.shipped"
}

finish() {
    local status=$?
    trap '' TERM INT HUP
    trap - EXIT
    set +e
    if [[ -n $bootstrap ]]; then
        kill -- "-$bootstrap" 2>/dev/null
        wait "$bootstrap"
    fi
    if [[ -n $reporter ]]; then
        kill "$reporter" 2>/dev/null
        wait "$reporter"
    fi
    [[ ! -e $log.taken-over ]] || doing='running the job'
    say "the end, with exit code $status while $doing"
    tail -n 20 "$log" >&3 # to the instance's console
    attempts=3
    ship_log
    locked report failed "The node ended with exit code $status while $doing."
    [[ -z ${TOOLKIT_REHEARSAL-} ]] || exit "$status"
    shutdown -h now || poweroff -f
}

# The tests source this file to take single functions out.
if [[ ${BASH_SOURCE[0]-$0} == "$0" ]]; then
    exec 3>&1 >>"$log" 2>&1 </dev/null
    trap finish EXIT
    trap 'exit 143' TERM INT HUP
    main
fi
