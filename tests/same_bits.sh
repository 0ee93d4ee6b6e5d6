#!/usr/bin/env bash
# One file, every target, the same bits: runs the examples and real models on the same .heed files on this machine with every
# instruction set, in C and C++, compiled by g++ and clang, and under qemu for aarch64 and armv7, and compares the hashes.
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

# ISAS_UNDER_QEMU PROGRAM FILE...: every file is an argument of the program.
compare() {
  local emulated=$1 program=$2 name=$2 files=() isa
  shift 2
  for file in "$@"; do files+=(-f "$file"); done
  [ "$program" != forecast ] || name=$(basename "$1" .heed)
  expected=$("build/$program" "$@" --isa portable 2>&1 | hash_of)
  echo "$name: $expected"
  [ ${#expected} -ge 64 ] || { echo "no hash from build/$program" >&2; exit 1; }
  for isa in avx2 avx512 avxvnni avx512vnni; do  # no emulator at hand has the last two
    if "build/$program" "$@" --isa $isa >build/same_bits.log 2>&1; then
      same "$name, $isa" "$(hash_of <build/same_bits.log)"
    elif grep -q "instruction set unavailable" build/same_bits.log; then
      [ $isa-$program = avx512-heed_hash ] || [ $isa = avx2 ] || continue  # one boot of the emulator, for all files at once
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
  for isa in $emulated; do
    same "$name, aarch64, $isa" "$(qemu-aarch64 -L /usr/aarch64-linux-gnu "build/aarch64/$program" "$@" --isa $isa 2>&1 | hash_of)"
    same "$name, armv7, $isa" "$(qemu-arm -cpu max -L /usr/arm-linux-gnueabihf "build/armv7/$program" "$@" --isa $isa 2>&1 | hash_of)"
  done
  [ "$program" = heed_hash ] || return 0
  for isa in dotprod i8mm; do  # int8 has kernels of its own for these
    same "$name, aarch64, $isa" "$(qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu "build/aarch64/$program" "$@" --isa $isa 2>&1 | hash_of)"
  done
}

for model in lstm_attention transformer; do
  compare "portable neon" forecast "$PWD/build/$model.heed" "$prices"
  same "$model, C" "$(build/forecast_c "build/$model.heed" "$prices" | hash_of)"
done
compare neon voice_activity "$PWD/build/voice_activity.heed" "$PWD/examples/voice_activity/speech_test.wav"
compare neon tiny_story "$PWD/build/tiny_story.heed" "$PWD/examples/tiny_story/tok512.bin"

# Every file once more, and real models where they are at hand, in one call; portable takes minutes under qemu, and the first
# models stand for it.
real=("$PWD"/build/{lstm_attention,transformer,voice_activity,tiny_story}.heed)
convert() {  # NAME ONNX OPTION...
  mkdir -p build/same_bits
  build/heed convert "$models/$2" -o build/same_bits/$1.heed "${@:3}" >/dev/null
  real+=("$PWD/build/same_bits/$1.heed")
}
models=examples/stock_forecast
convert transformer_i8 transformer.onnx --dim batch=1..64 --quantize int8
models=../shared/models
if [ -d $models ]; then
  convert kwt1_i8 kwt1/kwt1.onnx --quantize int8
  convert prefill_i8 stories260k/stories260k_prefill.onnx --dim tokens=1..33 --quantize int8
  convert silero_lstm_i8 silero/vad_lstm_16k.onnx --dim sequence=576 --set sr=16000 --quantize int8
  convert dtln_1_i8 dtln/model_1.onnx --quantize int8
  convert silero_lstm silero/vad_lstm_16k.onnx --dim sequence=576 --set sr=16000
  convert silero_attention silero/vad_attention_16k.onnx --dim samples=4000
  convert dtln_1 dtln/model_1.onnx
  convert dtln_2 dtln/model_2.onnx
  convert gtcrn gtcrn/gtcrn.onnx
  convert magika magika/standard_v3_3.onnx --dim bytes:0=1
  convert kwt1 kwt1/kwt1.onnx
  convert limu_bert limu_bert/limu_bert.onnx
  convert sasrec sasrec/sasrec.onnx --dim length=1..50
  convert prefill stories260k/stories260k_prefill.onnx --dim tokens=1..33
  convert step stories260k/stories260k_step.onnx --dim past=0..511
else
  echo "skipped: real models: ../shared/models is not here" >&2
fi
compare neon heed_hash "${real[@]}"
echo "same bits: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
