#!/usr/bin/env bash
# The stock example from end to end, in BUILD_DIR: what the converter says, the forecasts of both models, and three pictures.
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "$0")"

plots=()
for model in lstm_attention transformer; do
  echo
  echo "== $model"
  "$build/heed" convert $model.onnx -o "$build/$model.heed" --dim batch=1..64
  "$build/forecast" "$build/$model.heed" sp500.csv "$build/$model.csv"
  "$build/heed" attention "$build/$model.heed" --input window=last_window.npy -o "$build/$model.attention.png"
  plots+=("$model=$build/$model.csv")
done
/usr/bin/python3 plot.py "$build/forecast.png" "${plots[@]}"
echo
echo "pictures: $build/forecast.png, $build/lstm_attention.attention.png, $build/transformer.attention.png"
