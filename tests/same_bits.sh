#!/usr/bin/env bash
# One file, every target, the same bits: runs the stock example on the same .heed files on this machine with every instruction
# set, in C and C++, compiled by g++ and clang, and under qemu for aarch64 and armv7, and compares the hashes of the outputs.
# Wants the presets release, clang, aarch64 and armv7 built; what is missing is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
prices=examples/stock_forecast/sp500.csv
passed=0 failed=0 skipped=0

hash_of() { sed -n 's/^hash: //p'; }

same() {  # WHAT HASH
  if [ "$2" = "$expected" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $1: ${2:-no hash}, expected $expected" >&2
  fi
}

for model in lstm_attention transformer; do
  file=build/$model.heed
  expected=$(build/forecast $file $prices /dev/null portable | hash_of)
  echo "$model: $expected"
  [ ${#expected} -eq 64 ] || { echo "no hash from build/forecast" >&2; exit 1; }
  for isa in avx2 avx512; do
    if build/forecast $file $prices /dev/null $isa >build/same_bits.log 2>&1; then
      same "$model, $isa" "$(hash_of <build/same_bits.log)"
    elif grep -q "instruction set unavailable" build/same_bits.log; then
      if [ $isa = avx512 ] && output=$(tests/emulate/avx512.sh -f $file -f $prices build/forecast "$PWD/$file" "$PWD/$prices" /dev/null avx512); then
        same "$model, $isa emulated" "$(hash_of <<<"$output")"
      else
        skipped=$((skipped + 1))
        echo "skipped: $model, $isa: neither this processor nor an emulator runs it" >&2
      fi
    else
      same "$model, $isa" "$(tail -n 1 build/same_bits.log)"
    fi
  done
  same "$model, C" "$(build/forecast_c $file $prices | hash_of)"
  same "$model, clang" "$(build/clang/forecast $file $prices | hash_of)"
  same "$model, clang, portable" "$(build/clang/forecast $file $prices /dev/null portable | hash_of)"
  for isa in portable neon; do
    same "$model, aarch64, $isa" "$(qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/forecast $file $prices /dev/null $isa | hash_of)"
    same "$model, armv7, $isa" "$(qemu-arm -cpu max -L /usr/arm-linux-gnueabihf build/armv7/forecast $file $prices /dev/null $isa | hash_of)"
  done
done
echo "same bits: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
