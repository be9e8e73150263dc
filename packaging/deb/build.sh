#!/bin/sh
# Build dist/llama-router_VERSION_ARCHITECTURE.deb for the Debian that this is:  build.sh
# Run from the top of the checkout, on Debian 12 or a later one; as root it installs what it needs with apt-get. VERSION and
# SOURCE_DATE_EPOCH in the environment replace the version in supervisor/__init__.py and the date of the last commit.
set -eu

# Debian's own, whatever comes first on PATH: the package's environment belongs to it.
python=/usr/bin/python3
log=dist/deb.log
cache=${XDG_CACHE_HOME:-$HOME/.cache}/llama-router/wheels
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 DEBIAN_FRONTEND=noninteractive

# Not for the builder's CPU alone: a library for each kind of x86-64 or ARM CPU, of which llama.cpp takes the best that runs.
# They go where llama-cpp-python has its other libraries, and find those there.
cmake_arguments='-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON
    -DCMAKE_INSTALL_BINDIR=llama_cpp/lib -DCMAKE_INSTALL_RPATH=$ORIGIN'

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $1"
    shift
    for line in "$@"; do say "       $line"; done
    exit 1
}

# Run a command with its output in the log, whose end is shown only when the command fails.
quietly() {
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 60 "$log" >&2
        fail "cannot build the package: the command below failed; the lines above are the end of $log" "$*"
    fi
}

check_system() {
    command -v dpkg >/dev/null || fail "cannot build a Debian package: there is no dpkg here" "Run it on Debian 12 or a later one."
    command -v dpkg-checkbuilddeps >/dev/null || install_packages dpkg-dev
    if ! missing=$(dpkg-checkbuilddeps packaging/deb/debian/control 2>&1); then
        # The words in parentheses are versions, which apt-get gets right by itself.
        missing=$(printf '%s\n' "${missing##*dependencies: }" | sed 's/([^)]*)//g')
        install_packages $missing
    fi
    owner=$(dpkg-query --search "$(readlink -f "$python")" 2>/dev/null) ||
        fail "cannot build the package with $python: it is not Debian's" "The package needs the Python of the Debian it is for."
    say "Building for $(. /etc/os-release && echo "$PRETTY_NAME") with its ${owner%%[-:]*}"
}

install_packages() {
    [ "$(id -u)" = 0 ] || fail "cannot build the package without: $*" \
        "Install them, then run make again:  sudo apt-get update && sudo apt-get install $*"
    say "Installing with apt-get: $*"
    quietly apt-get update
    quietly apt-get install -y --no-install-recommends "$@"
}

# Print the directory of llama-cpp-python's wheel, which is compiled unless that was done before with the same settings.
llama_cpp() {
    pin=$(grep '^llama_cpp_python==' constraints.txt)
    key=$({ echo "$pin $cmake_arguments" && dpkg --print-architecture && c++ --version; } | sha256sum | cut -c1-16)
    wheels=$cache/$key
    if [ -z "$(find "$wheels" -name '*.whl' 2>/dev/null)" ]; then
        say "Compiling ${pin%%=*} for every kind of CPU: about 10 minutes on 2 cores, once; the wheel is kept in"
        say "$wheels (progress: tail -f $log)"
        compile_llama_cpp
    fi
    echo "$wheels"
}

compile_llama_cpp() {
    quietly "$work/tools/bin/pip" download --no-deps --no-binary llama-cpp-python --dest "$work" "$pin"
    mkdir "$work/llama"
    tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work/llama" --strip-components=1
    # GCC before 14 does not know ARM's SME; CPUs that have it then use the variant without.
    if ! echo | c++ -march=armv9.2-a+sme -E - >/dev/null 2>&1; then
        sed -i '/ggml_add_cpu_backend_variant(armv.* SME)/d' "$work/llama/vendor/llama.cpp/ggml/src/CMakeLists.txt"
    fi
    # Assertions name their source files.
    map=-ffile-prefix-map=$work/llama=llama-cpp-python
    quietly env CMAKE_ARGS="$cmake_arguments" CFLAGS="$map" CXXFLAGS="$map" \
        "$work/tools/bin/pip" wheel -v --no-deps --no-cache-dir --wheel-dir "$work/wheels" "$work/llama"
    mkdir -p "$cache"
    # Another build may have been as fast; a half written directory must never be taken for a whole one.
    chosen=$(mktemp -d "$cache/.new-XXXXXX")
    cp "$work"/wheels/llama_cpp_python-*.whl "$chosen"
    mv -T "$chosen" "$wheels" 2>/dev/null || rm -rf "$chosen"
}

# What the package is made of, without what a checkout collects, and with debian/ at its top.
copy_sources() {
    mkdir "$work/source"
    tar -cf - --exclude=__pycache__ supervisor admin templates units docs packaging \
        pyproject.toml constraints.txt README.md CHANGELOG.md LICENSE | tar -xf - -C "$work/source"
    cp -R packaging/deb/debian "$work/source/debian"
    {
        echo "llama-router ($version) stable; urgency=medium"
        printf '\n  * CHANGELOG.md tells what is in it.\n\n'
        echo " -- $(sed -n 's/^Maintainer: //p' packaging/deb/debian/control)  $(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")"
    } >"$work/source/debian/changelog"
}

build_package() {
    architecture=$(dpkg --print-architecture)
    say "Building dist/llama-router_${version}_$architecture.deb"
    export LLAMA_CPP_WHEELS="$1" PYTHON="$python"
    (cd "$work/source" && exec dpkg-buildpackage --build=binary --no-sign) >>"$log" 2>&1 </dev/null || {
        tail -n 60 "$log" >&2
        fail "cannot build the package: dpkg-buildpackage failed; the lines above are the end of $log"
    }
    mv "$work/llama-router_${version}_$architecture.deb" dist/
    say "Done. Install it with:  sudo apt-get install ./dist/llama-router_${version}_$architecture.deb"
}

mkdir -p dist
: >"$log"
check_system
# debhelper's commands cannot carry a path with a space in it, which the checkout's may have.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
# 1.0rc1 of Python is 1.0~rc1 of Debian; the package itself has had no revision.
version=${VERSION:-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' supervisor/__init__.py | sed 's/\(a\|b\|rc\|\.dev\)\([0-9]\)/~\1\2/')-1}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH
quietly "$python" -m venv "$work/tools"
wheels=$(llama_cpp)
copy_sources
build_package "$wheels"
