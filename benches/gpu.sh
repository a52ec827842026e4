#!/usr/bin/env bash
# Builds for the GPUs of this machine, tests there, and measures beside PyTorch and ONNX Runtime as far as Python has them.
# benches/GPU.md has what was found so far.
set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/gpu.sh [OPTIONS]

  --backend NAME   cuda (needs nvcc) or vulkan (needs glslc and headers) [default: cuda]
  --out FOLDER     where reports and logs go [default: target/gpu]
  --runs N         answers that are timed of each kind [default: 200]
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

backend=cuda out='' runs=200 vendor='' offline=''
while [ $# != 0 ]; do
    case $1 in
        --backend | --out | --runs | --vendor | --offline)
            [ $# -ge 2 ] || fail "$1 needs a value; --help tells more"
            case $1 in
                --backend) backend=$2 ;;
                --out) out=$(realpath -m "$2") ;;
                --runs) runs=$2 ;;
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
    cargo vendor --locked "$vendor/crates" >"$vendor/$settings"
    say "all sources are in $vendor"
    exit
fi
cargo=(cargo)
if [ -n "$offline" ]; then
    [ -f "$offline/$settings" ] || fail "$offline holds no sources: benches/gpu.sh --vendor makes them"
    # The folder may have moved since.
    sed "s|^directory = .*|directory = \"$offline/crates\"|" "$offline/$settings" >"$offline/here.toml"
    cargo=(cargo --config "$offline/here.toml" --offline)
fi
out=${out:-${CARGO_TARGET_DIR:-target}/gpu}
mkdir -p "$out"

if [ "$backend" = cuda ]; then
    nvcc=${CUDA_PATH:-/usr/local/cuda}/bin/nvcc
    command -v nvcc >/dev/null || [ -x "$nvcc" ] || fail "nvcc is not found: set CUDA_PATH to CUDA's folder"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv >"$out/device.txt" 2>&1 ||
        cat /proc/device-tree/model >"$out/device.txt" 2>/dev/null || say "nothing names the GPU here"
fi

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
check easy-vqa --test easy_vqa -- --ignored --nocapture every_device

for type in f16 q8_0 q4_0; do
    say "measuring $type"
    "$programs/lxmert-bench" --synthetic base --type "$type" --device "$backend" --batch 1,8,64 --runs "$runs" --warmup 20 \
        --cold-starts 3 --json >"$out/$type.jsonl" || failed+=("$type")
done

if python3 -c 'import torch, transformers' 2>/dev/null; then
    say "measuring the peers"
    python3 benches/peers/gpu.py "$out/peers" --runs "$runs" >"$out/peers.jsonl" || failed+=(peers)
else
    say "Python has no torch and transformers: peers are left out"
fi

python3 - "$out" <<'END' || true
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])
print(f"{'':28} {'batch':>5} {'p50 ms':>8} {'next ms':>8} {'device MiB':>10}")
for path in sorted(out.glob("*.jsonl")):
    for line in path.read_text().splitlines():
        report = json.loads(line)
        next_ms = (report.get("next_question") or {}).get("p50_ms")
        held = report.get("device_bytes")
        print(
            f"{report.get('peer', 'lxmert ' + path.stem):28} {report['batch']:5} {report['latency']['p50_ms']:8.3f} "
            f"{'' if next_ms is None else format(next_ms, '.3f'):>8} {'' if not held else format(held / 2**20, '.0f'):>10}"
        )
END
[ ${#failed[@]} = 0 ] || fail "failed: ${failed[*]}"
say "done: $out"
