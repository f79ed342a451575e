#!/usr/bin/env bash
# Makes what images stand on of Debian's packages, where no image can be pulled: the C library, and no shell.
#
#   scripts/image-base.sh BASE.tar BUILDER.tar     writes both root file systems, for `docker import`
#
# The second one has a shell besides, which the build stage needs to put files in their place.
set -euo pipefail
base=${1:?name two files} builder=${2:?name two files}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unpack() { # root, packages...
  local root=$1 package
  shift
  for package in "$@"; do
    # apt-get gets files as another user where it can.
    mkdir -p "$work/packages/$package" && chmod 777 "$work" "$work/packages" "$work/packages/$package"
    (cd "$work/packages/$package" && apt-get download -qq "$package" > /dev/null) ||
      { echo "error: apt-get could not get $package" >&2; exit 1; }
    dpkg-deb --extract "$work/packages/$package/"*.deb "$root"
  done
}
pack() { # root, file
  # Nothing of when and where it was made.
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$1" -cf "$2" .
}

root=$work/base
mkdir -p "$root/etc" "$root/tmp"
chmod 1777 "$root/tmp"
# The licence of libgcc lies in a package of its own, named after the compiler's version.
licence=$(apt-cache depends libgcc-s1 | sed -n 's/^ *Depends: \(gcc-[0-9]*-base\)$/\1/p')
unpack "$root" libc6 libgcc-s1 ${licence:+"$licence"}
# Character sets and documentation; the licences stay.
rm -rf "$root"/usr/lib/*/gconv "$root"/usr/share/lintian
find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root" -xtype l -path '*/doc/*' -delete
printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' > "$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' > "$root/etc/group"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
pack "$root" "$base"

unpack "$root" busybox-static
for command in sh cp mv chmod touch mkdir; do ln -sf busybox "$root/bin/$command"; done
pack "$root" "$builder"
