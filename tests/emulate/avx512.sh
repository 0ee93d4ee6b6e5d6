#!/usr/bin/env bash
# Runs a program on an emulated processor with AVX-512, for machines that lack it: Bochs boots Debian's kernel with a RAM disk
# that holds the program, its shared libraries and the files given, and prints what the program prints.
#
#   tests/emulate/avx512.sh [-f FILE]... PROGRAM [ARGUMENT]...      exit code: the program's; 77 where the emulator cannot be had
#
# FILEs keep their path, made absolute. One boot takes about a minute; the program runs some hundred times slower than here.
set -euo pipefail

files=()
while [ "${1:-}" = -f ]; do
  files+=("$(realpath "$2")")
  shift 2
done
program=$(realpath "$1")
shift

skip() {
  echo "skipped: $1" >&2
  exit 77
}
[ "$(uname -m)" = x86_64 ] || skip "Bochs is run on x86-64 only"
for tool in bochs genisoimage cpio busybox; do
  command -v $tool >/dev/null || skip "$tool is not installed (packages bochs, bochsbios, vgabios, isolinux, syslinux-common, genisoimage, cpio, busybox-static)"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kernel_cache=${XDG_CACHE_HOME:-$HOME/.cache}/heed/vmlinuz
if [ ! -f "$kernel_cache" ]; then  # unpacked, never installed
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/ *Depends: //p' | head -n 1)
  [ -n "$package" ] || skip "no kernel package linux-image-cloud-amd64"
  (cd "$work" && apt-get download -qq "$package" 2>/dev/null && dpkg -x "$package"_*.deb kernel) || skip "cannot download $package"
  mkdir -p "$(dirname "$kernel_cache")"
  cp "$work"/kernel/boot/vmlinuz-* "$kernel_cache"
fi

root=$work/root
mkdir -p "$root"/{bin,proc,dev,sys,tmp} "$work/iso/isolinux"
cp "$(command -v busybox)" "$root/bin/busybox"
for file in "$program" "${files[@]}" $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true); do
  mkdir -p "$root$(dirname "$file")"
  cp -L "$file" "$root$file"
done
{
  echo '#!/bin/busybox sh'
  echo '/bin/busybox mount -t proc proc /proc'
  echo '/bin/busybox mount -t devtmpfs dev /dev'
  echo 'cd /tmp'
  echo 'echo heed-begin'
  for variable in $(compgen -e | grep '^HEED_' || true); do printf 'export %s=%q\n' "$variable" "${!variable}"; done
  printf '%q ' "$program" "$@"
  echo
  echo 'echo heed-end $?'
  echo '/bin/busybox sleep 100000  # the emulator is ended from outside, when the serial line has given everything'
} >"$root/init"
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/iso/isolinux/initrd.gz"
cp "$kernel_cache" "$work/iso/isolinux/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso/isolinux/"
# Bochs lays out compacted XSAVE areas otherwise than the kernel expects, which would then turn AVX off: 321 is XSAVEC, 323 XSAVES.
cat >"$work/iso/isolinux/isolinux.cfg" <<'END'
default heed
prompt 0
timeout 1
label heed
 kernel vmlinuz
 append initrd=initrd.gz console=ttyS0 quiet nokaslr mitigations=off tsc=reliable lpj=1000000 idle=poll clearcpuid=321,323 lsm=
END
genisoimage -quiet -o "$work/disk.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
  -boot-info-table "$work/iso"
cat >"$work/bochsrc" <<END
megs: 1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios-stdvga.bin
cpu: model=corei7_skylake_x, count=1, ips=50000000, reset_on_triple_fault=0
ata0: enabled=1
ata0-master: type=cdrom, path=$work/disk.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial
display_library: rfb, options="timeout=0"
clock: sync=none
log: $work/log
END

# Debian's Bochs starts in its debugger: `c` lets it go on, and its input must stay open.
touch "$work/serial"
mkfifo "$work/input"
bochs -q -f "$work/bochsrc" <"$work/input" >"$work/console" 2>&1 &
emulator=$!
exec 3>"$work/input"
echo c >&3
tail -f -n +1 --pid=$emulator "$work/serial" 2>/dev/null | tr -d '\r' | sed -n -u '/^heed-begin/,/^heed-end/{/^heed-/!p}' &
printer=$!
for ((second = 0; second < ${EMULATION_SECONDS:-1500}; ++second)); do
  grep -q '^heed-end' "$work/serial" && break
  kill -0 $emulator 2>/dev/null || break
  sleep 1
done
sleep 1
kill $emulator 2>/dev/null || true
wait $printer 2>/dev/null || true
code=$(tr -d '\r' <"$work/serial" | sed -n 's/^heed-end \([0-9]*\).*/\1/p')
[ -n "$code" ] || { echo "the emulated machine did not finish" >&2; tail -n 5 "$work/serial" "$work/log" >&2; exit 1; }
exit "$code"
