#!/usr/bin/env bash
# Builds for the GPUs of this machine, tests there, measures beside PyTorch and ONNX Runtime as far as Python has them, and writes what was
# found into benches/GPU.md.
set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/gpu.sh [OPTIONS]

  --backend NAME   cuda (needs nvcc) or vulkan (needs glslc and headers) [default: cuda]
  --out FOLDER     where reports and logs go [default: target/gpu]
  --record FILE    what is found is written into [default: benches/GPU.md]
  --runs N         answers that are timed of each kind [default: 200]
  --model NAME     the architecture that is measured, one of lxmert-bench --synthetic [default: base]
  --vendor FOLDER  only put the sources of all dependencies into FOLDER, for a machine without network
  --offline FOLDER build from such a folder
  --help           print this

On a machine with network: benches/gpu.sh --vendor vendored. On the one with the GPU, with this source and that folder:
benches/gpu.sh --offline vendored
END
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
say() { printf '== %s\n' "$*" >&2; }

backend=cuda out='' record=benches/GPU.md runs=200 model=base vendor='' offline=''
while [ $# != 0 ]; do
    case $1 in
        --backend | --out | --record | --runs | --model | --vendor | --offline)
            [ $# -ge 2 ] || fail "$1 needs a value; --help tells more"
            case $1 in
                --backend) backend=$2 ;;
                --out) out=$(realpath -m "$2") ;;
                --record) record=$(realpath -m "$2") ;;
                --runs) runs=$2 ;;
                --model) model=$2 ;;
                --vendor) vendor=$(realpath -m "$2") ;;
                --offline) offline=$(realpath -m "$2") ;;
            esac
            shift 2
            ;;
        --help) usage && exit ;;
        *) fail "$1 is no option; --help lists them" ;;
    esac
done
case $backend in cuda | vulkan) ;; *) fail "--backend $backend is neither cuda nor vulkan" ;; esac
[[ $runs =~ ^[1-9][0-9]*$ ]] || fail "--runs $runs is no number from 1 on"

cd "$(dirname "$0")/.."
command -v cargo >/dev/null || fail "cargo is not found: a Rust toolchain, 1.89 or newer"

# Cargo's settings that read dependencies from a folder, as `cargo vendor` prints them.
settings=cargo-settings.toml
if [ -n "$vendor" ]; then
    mkdir -p "$vendor"
    # With the package that carries ggml, which no other depends on.
    cargo vendor --locked --sync vendor/ggml/Cargo.toml "$vendor/crates" >"$vendor/$settings"
    say "all sources are in $vendor"
    exit
fi
cargo=(cargo)
if [ -n "$offline" ]; then
    [ -f "$offline/$settings" ] || fail "$offline holds no sources: benches/gpu.sh --vendor makes them"
    # The folder may have moved since.
    sed "s|^directory = .*|directory = \"$offline/crates\"|" "$offline/$settings" >"$offline/here.toml"
    cargo=(cargo --config "$offline/here.toml" --offline)
    export GGML_SOURCE_DIR=$offline/crates/llama-cpp-sys-2/llama.cpp/ggml
fi
out=${out:-${CARGO_TARGET_DIR:-target}/gpu}
mkdir -p "$out"

if [ "$backend" = cuda ]; then
    nvcc=${CUDA_PATH:-/usr/local/cuda}/bin/nvcc
    command -v nvcc >/dev/null || [ -x "$nvcc" ] || fail "nvcc is not found: set CUDA_PATH to CUDA's folder"
fi
# The driver and the clocks, or the board: beside the name that the driver gives the device.
nvidia-smi --query-gpu=driver_version,memory.total,clocks.max.sm --format=csv,noheader >"$out/machine.txt" 2>/dev/null ||
    tr -d '\0' </proc/device-tree/model >"$out/machine.txt" 2>/dev/null || rm -f "$out/machine.txt"

say "building"
"${cargo[@]}" build --release --workspace --exclude xtask --features "lxmert/$backend"
programs=${CARGO_TARGET_DIR:-target}/release
"$programs/lxmert-vqa" --version | tee "$out/version.txt"

failed=()
check() {
    local name=$1
    shift
    say "$name"
    if ! "${cargo[@]}" test --release --features "$backend" "$@" >"$out/$name.log" 2>&1; then
        failed+=("$name")
        say "failed, see $out/$name.log; going on"
    fi
}
check golden --test devices -- --nocapture
check easy-vqa --test easy_vqa -- --nocapture every_device

bench() {
    "$programs/lxmert-bench" --synthetic "$model" --type "$1" --device "$backend" --json "${@:2}"
}
for type in f16 q8_0 q4_0; do
    say "measuring $type"
    bench "$type" --batch 1,8,64 --runs "$runs" --warmup 20 --cold-starts 3 >"$out/$type.jsonl" || failed+=("$type")
    # One by one: what operations there are, and whether the device has all.
    bench "$type" --profile --runs 3 --cold-starts 0 >"$out/$type.profile.jsonl" || failed+=("profile-$type")
done

rm -f "$out/peers.jsonl"
if [ "$backend" = cuda ] && [ "$model" = base ] && python3 -c 'import torch, transformers' 2>/dev/null; then
    say "measuring the peers"
    python3 benches/peers/gpu.py "$out/peers" --runs "$runs" >"$out/peers.jsonl" || failed+=(peers)
else
    say "no CUDA, another model, or Python has no torch and transformers: peers are left out"
fi

python3 benches/gpu_report.py "$out" "$record" "${failed[@]}" || failed+=(report)
[ ${#failed[@]} = 0 ] || fail "failed: ${failed[*]}"
say "done: $out, $record"
