#!/usr/bin/env bash
# The story example from end to end, in BUILD_DIR: what the converter says, the likeliest story, and another by chance.
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "$0")"

"$build/heed" convert stories260k_step.onnx -o "$build/tiny_story.heed" --dim past=0..511
"$build/tiny_story" "$build/tiny_story.heed" tok512.bin
echo
"$build/tiny_story" "$build/tiny_story.heed" tok512.bin --prompt "Once upon a time, a robot" --temperature 0.8 --seed 7
