#!/bin/sh
# One training over two processes: on the CPU they share the cores, on GPUs each has its own.
# sh examples/two_processes.sh [EPOCHS] [RUN]
set -eu
epochs=${1:-40}
run=${2:-runs/two-processes}

# Each process samples its half of every batch; the curves are fitted to what both saw.
spikestrap train digits-mlp --devices 2 --epochs "$epochs" --out "$run"
spikestrap evaluate "$run"
