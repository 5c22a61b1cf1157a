# The commands of daily work; `just --list` shows them. Set up first: bash localstack/bootstrap.sh dev

set positional-arguments

bin := justfile_directory() / ".venv/bin"

# start the local stack: MinIO and Spark
up *args:
    "{{ bin }}/toolkit" up "$@"

# stop the local stack; data is kept
down *args:
    "{{ bin }}/toolkit" down "$@"

# run the pipeline (default: on the sample images)
run *args:
    "{{ bin }}/toolkit" run "$@"

# run the inner loop of tests: unit, aws, stack
test *args:
    "{{ bin }}/pytest" "$@"

# run all tests of the gate
test-all *args:
    bash localstack/bootstrap.sh test "$@"

# run the release tier: bare machines, full rehearsals, every kill point, all networks (needs root and debootstrap)
test-release *args:
    "{{ bin }}/python" -m tests.release "$@"

# look for mistakes in the code
lint:
    "{{ bin }}/ruff" check
    "{{ bin }}/ruff" format --check
    "{{ bin }}/shellcheck" localstack/*.sh toolkit/cloud/node/*.sh .ci/run
    "{{ bin }}/lint-imports"

# put the code into its format
format:
    "{{ bin }}/ruff" check --fix
    "{{ bin }}/ruff" format

# check the types
types:
    "{{ bin }}/mypy"

# write the reference of toolkit.sparkdl anew, from its docstrings
reference:
    "{{ bin }}/python" -m docs.reference

# measure beside what people use, and make the table (hours; benchmarks/README.md)
bench *args:
    "{{ bin }}/python" -m benchmarks "$@"

# resolve the dependencies anew: everything for `requirements-dev.lock`, less the tools for `requirements.lock`
lock *args:
    "{{ bin }}/uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
        --extra local --group dev "$@" --output-file requirements-dev.lock pyproject.toml
    "{{ bin }}/uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
        --extra local --constraints requirements-dev.lock "$@" --output-file requirements.lock pyproject.toml

# run a command on a fresh, bare Debian (needs root), for example: just clean-root bash localstack/bootstrap.sh run
clean-root *command:
    bash localstack/clean-root.sh "$@"
