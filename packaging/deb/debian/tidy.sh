# Leave in an environment what runs in its final place, and nothing that names the place where it was made:
#   tidy.sh ENVIRONMENT SITE_PACKAGES
set -eu
environment=$1
packages=$2

# Scripts for shells and for pip's users; the command of the package is put in later.
find "$environment/bin" -mindepth 1 ! -name 'python*' -delete
rm -rf "$environment/include"
sed -i '/^command = /d' "$environment/pyvenv.cfg"

# pip's notes: dpkg knows whose the files are, and they would not match.
rm -f "$packages"/*.dist-info/RECORD "$packages"/*.dist-info/REQUESTED "$packages"/*.dist-info/direct_url.json
echo dpkg | tee "$packages"/*.dist-info/INSTALLER >/dev/null

# llama.cpp's headers, and its libraries once more.
rm -rf "${packages:?}/include" "$packages/lib" "$packages/bin"
find "$packages" -type d -name tests -prune -exec rm -rf {} +

# A wheel can't hold symbolic links, and so has each library three times: libx.so, libx.so.0 and libx.so.0.1.2.
for library in "$packages"/llama_cpp/lib/lib*.so; do
    for copy in "$library".*; do
        [ -e "$copy" ] && ln -sf "${library##*/}" "$copy"
    done
done
