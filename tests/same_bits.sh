#!/usr/bin/env bash
# One file, every target, the same bits: runs the examples on the same .heed files on this machine with every instruction set, in
# C and C++, compiled by g++ and clang, and under qemu for aarch64 and armv7, and compares the hashes of the outputs.
# Wants the presets release, clang, aarch64 and armv7 built; what is missing is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
prices=$PWD/examples/stock_forecast/sp500.csv
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

# PROGRAM FILE...: every file is an argument of the program.
compare() {
  local program=$1 name=$1 files=()
  shift
  for file in "$@"; do files+=(-f "$file"); done
  [ "$program" != forecast ] || name=$(basename "$1" .heed)
  expected=$("build/$program" "$@" --isa portable 2>&1 | hash_of)
  echo "$name: $expected"
  [ ${#expected} -eq 64 ] || { echo "no hash from build/$program" >&2; exit 1; }
  for isa in avx2 avx512; do
    if "build/$program" "$@" --isa $isa >build/same_bits.log 2>&1; then
      same "$name, $isa" "$(hash_of <build/same_bits.log)"
    elif grep -q "instruction set unavailable" build/same_bits.log; then
      if [ $isa = avx512 ] && output=$(tests/emulate/avx512.sh "${files[@]}" "build/$program" "$@" --isa avx512 2>&1); then
        same "$name, $isa emulated" "$(hash_of <<<"$output")"
      else
        skipped=$((skipped + 1))
        echo "skipped: $name, $isa: neither this processor nor an emulator runs it" >&2
      fi
    else
      same "$name, $isa" "$(tail -n 1 build/same_bits.log)"
    fi
  done
  same "$name, clang" "$("build/clang/$program" "$@" 2>&1 | hash_of)"
  same "$name, clang, portable" "$("build/clang/$program" "$@" --isa portable 2>&1 | hash_of)"
  for isa in portable neon; do
    same "$name, aarch64, $isa" "$(qemu-aarch64 -L /usr/aarch64-linux-gnu "build/aarch64/$program" "$@" --isa $isa 2>&1 | hash_of)"
    same "$name, armv7, $isa" "$(qemu-arm -cpu max -L /usr/arm-linux-gnueabihf "build/armv7/$program" "$@" --isa $isa 2>&1 | hash_of)"
  done
}

for model in lstm_attention transformer; do
  compare forecast "$PWD/build/$model.heed" "$prices"
  same "$model, C" "$(build/forecast_c "build/$model.heed" "$prices" | hash_of)"
done
compare voice_activity "$PWD/build/voice_activity.heed" "$PWD/examples/voice_activity/speech_test.wav"
compare tiny_story "$PWD/build/tiny_story.heed" "$PWD/examples/tiny_story/tok512.bin"
echo "same bits: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
