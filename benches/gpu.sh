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
  --trial          try the script where no GPU is: a tiny model, few answers, peers on the CPU, recorded in OUT/trial.md;
                   with --backend emulated, ggml's CPU backend stands in for the device too
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

backend=cuda out='' record='' runs='' model='' vendor='' offline='' trial=''
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
        --trial) trial=1 && shift ;;
        --help) usage && exit ;;
        *) fail "$1 is no option; --help lists them" ;;
    esac
done
case $backend${trial:+ trial} in
    cuda | vulkan | "cuda trial" | "vulkan trial" | "emulated trial") ;;
    *) fail "--backend $backend is neither cuda nor vulkan" ;;
esac
runs=${runs:-${trial:+3}} runs=${runs:-200}
model=${model:-${trial:+tiny}} model=${model:-base}
batches=${trial:+1 8} batches=${batches:-1 8 64}
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
record=${record:-${trial:+$out/trial.md}} record=${record:-benches/GPU.md}
mkdir -p "$out"

if [ "$backend" = cuda ]; then
    nvcc=${CUDA_PATH:-/usr/local/cuda}/bin/nvcc
    command -v nvcc >/dev/null || [ -x "$nvcc" ] || fail "nvcc is not found: set CUDA_PATH to CUDA's folder"
fi
# The driver and the clocks, or the board: beside the name that the driver gives the device.
board=/proc/device-tree/model
if [ "$backend" = cuda ] && nvidia-smi --query-gpu=driver_version,memory.total,clocks.max.sm --format=csv,noheader \
    >"$out/machine.txt" 2>/dev/null; then
    :
elif [ -r "$board" ]; then
    tr -d '\0' <"$board" >"$out/machine.txt"
else
    rm -f "$out/machine.txt"
fi

say "building"
features=() tested=()
if [ "$backend" != emulated ]; then
    features=(--features "lxmert/$backend") tested=(--features "$backend")
fi
"${cargo[@]}" build --release --workspace --exclude xtask "${features[@]}"
programs=${CARGO_TARGET_DIR:-target}/release
"$programs/lxmert-vqa" --version | tee "$out/version.txt"
# The tests also pass where there is no device but ggml's CPU backend, so whether there is one is asked first.
"$programs/lxmert-vqa" --device "$backend" >/dev/null || fail "no answer on $backend here (see above): nothing is measured"

failed=()
check() {
    local name=$1
    shift
    say "$name"
    if ! "${cargo[@]}" test --release "${tested[@]}" "$@" >"$out/$name.log" 2>&1; then
        failed+=("$name")
        say "failed, see $out/$name.log; going on"
    fi
}
check golden --test devices -- --nocapture
check easy-vqa --test easy_vqa -- --nocapture every_device

bench() {
    "$programs/lxmert-bench" --synthetic "$model" --type "$1" --device "$backend" "${@:2}"
}
# CUDA's calls that start work on the device, in so many first and next questions, by Nsight Systems.
launches() {
    nsys profile --trace=cuda --force-overwrite=true --output="$out/launches" \
        "$programs/lxmert-bench" --synthetic "$model" --type "$1" --device "$backend" --answer "$2" >/dev/null &&
        nsys stats --report cuda_api_sum --format csv --force-export=true "$out/launches.nsys-rep" |
        python3 benches/gpu_report.py --count-launches
}
rm -f "$out"/*.jsonl "$out/launches.txt"
for type in f16 q8_0 q4_0; do
    say "measuring $type"
    # A process for each, so that the driver counts the memory of one session.
    for batch in $batches; do
        bench "$type" --json --batch "$batch" --runs "$runs" --warmup 20 --cold-starts 3 >>"$out/$type.jsonl" ||
            failed+=("$type, batch $batch")
    done
    # One by one: what operations there are, and whether the device has all.
    bench "$type" --json --profile --runs 3 --cold-starts 0 >"$out/$type.profile.jsonl" || failed+=("profile of $type")
    if [ "$backend" = cuda ] && command -v nsys >/dev/null; then
        # The first answers of a session are left out by taking the difference.
        if few=$(launches "$type" 10,0) && many=$(launches "$type" 110,0); then
            echo "$type $few $many 100" >>"$out/launches.txt"
        else
            failed+=("launches of $type")
        fi
    fi
done

peers=(python3 benches/peers/gpu.py "$out/peers" --runs "$runs")
if [ -n "$trial" ] && python3 -c 'import torch, transformers' 2>/dev/null; then
    say "trying the peers on the CPU"
    "${peers[@]}" --trial >"$out/peers.jsonl" || failed+=(peers)
elif [ "$backend" = cuda ] && [ "$model" = base ] && python3 -c 'import torch, transformers' 2>/dev/null; then
    say "measuring the peers"
    "${peers[@]}" >"$out/peers.jsonl" || failed+=(peers)
else
    say "no CUDA, another model, or Python has no torch and transformers: peers are left out"
fi

python3 benches/gpu_report.py "$out" "$record" "${failed[@]}" || failed+=(report)
[ ${#failed[@]} = 0 ] || fail "failed: $(printf '%s; ' "${failed[@]}")see $out"
say "done: $out, $record"
