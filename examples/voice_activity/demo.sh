#!/usr/bin/env bash
# The voice activity example from end to end, in BUILD_DIR: what the converter says, the speech that is found, and a picture.
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "$0")"

"$build/heed" convert vad_lstm_16k.onnx -o "$build/voice_activity.heed" \
  --dim batch=1 --dim sequence=576 --set sr=16000 --state state=stateN
"$build/voice_activity" "$build/voice_activity.heed" speech_test.wav "$build/voice_activity.csv"
/usr/bin/python3 plot.py "$build/voice_activity.png" speech_test.wav "$build/voice_activity.csv"
echo "picture: $build/voice_activity.png"
