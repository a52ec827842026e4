#!/usr/bin/env bash
# Measures lxmert on the machine that it runs on, and writes all there is to know into one JSON file to send back. benches/ARM.md says
# what for. A run that was interrupted goes on where it stopped.
set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/board.sh [OPTIONS]

Builds lxmert here, runs its tests, measures answers of the base model with random weights, and writes one JSON file.

  --out FILE       where the result goes [default: lxmert-board-MACHINE-DATE.json in this folder]
  --types LIST     weight types to measure [default: q8_0,q4_0,bf16,f32]
  --threads LIST   numbers of threads [default: 1, 2, 4, ... and all cores]
  --runs N         answers that are timed of each kind [default: 30]
  --no-tests       do not run the tests
  --quick          see whether all works: q8_0, 3 runs, one test program
  --fresh          forget what an interrupted run has measured
  --help           print this

It needs 2 GB of disk, and free memory by the type: 600 MB for q8_0 and q4_0, 1 GB for bf16, 1.9 GB for f32. Types for which there is
less are left out. Most of the time goes into building and testing. Let nothing else run meanwhile. CARGO_TARGET_DIR and LXMERT_CPU count
as in any build.
END
}

say() { printf '== %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

out='' types=q8_0,q4_0,bf16,f32 threads='' runs=30 cold_starts=5 tests=all fresh=no
while [ $# != 0 ]; do
    case $1 in
        --out | --types | --threads | --runs)
            [ $# -ge 2 ] || fail "$1 needs a value; --help tells more"
            case $1 in
                --out) out=$2 ;;
                --types) types=$2 ;;
                --threads) threads=$2 ;;
                --runs) runs=$2 ;;
            esac
            shift 2
            ;;
        --no-tests) tests=none && shift ;;
        --quick) types=q8_0 runs=3 cold_starts=1 tests=one && shift ;;
        --fresh) fresh=yes && shift ;;
        --help) usage && exit ;;
        *) fail "$1 is no option; --help lists them" ;;
    esac
done
[[ $runs =~ ^[1-9][0-9]*$ ]] || fail "--runs $runs is no number from 1 on"
[[ $threads =~ ^([1-9][0-9]*(,[1-9][0-9]*)*)?$ ]] || fail "--threads $threads is no list like 1,4"

start_folder=$PWD
cd "$(dirname "$0")/.."
[ "$(uname -s)" = Linux ] || fail "this reads Linux's /proc and /sys: there is nothing for $(uname -s)"
cores=$(nproc)
if [ -z "$threads" ]; then
    for ((n = 1; n < cores; n *= 2)); do threads+=$n,; done
    threads+=$cores
fi
[ -n "$out" ] || out=lxmert-board-$(uname -m)-$(date +%Y%m%d).json
case $out in /*) ;; *) out=$start_folder/$out ;; esac
[ -d "$(dirname "$out")" ] || fail "there is no folder $(dirname "$out")"

missing=()
command -v cargo >/dev/null || missing+=("cargo (a Rust toolchain, 1.89 or newer: rustup.rs)")
command -v "${CXX:-c++}" >/dev/null || missing+=("${CXX:-c++} (a C++ compiler: apt-get install g++)")
for program in awk sed; do command -v $program >/dev/null || missing+=("$program"); done
[ ${#missing[@]} = 0 ] || fail "not found: $(printf '%s; ' "${missing[@]}" | sed 's/; $//')"

# What is measured, so that a run that goes on mixes no two states of the source or settings.
revision=$(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
changes=$({ git diff HEAD || true; git ls-files --others --exclude-standard || true; } 2>/dev/null | cksum | cut -d' ' -f1)
# Without git nothing tells whether the source is the same.
[ "$revision" != unknown ] || fresh=yes
target=${CARGO_TARGET_DIR:-target}
pieces=$target/board/$revision-$changes-${LXMERT_CPU:-native}-runs$runs-tests-$tests
[ $fresh = no ] || rm -rf "$pieces"
mkdir -p "$pieces"

# Text without the folders' names that tell whose machine it is.
nameless() {
    local text=${1//"$PWD"/.} home='~'
    text=${text//"$(pwd -P)"/.}
    case ${HOME:-/} in
        /) printf '%s' "$text" ;;
        *) printf '%s' "${text//"$HOME"/$home}" ;;
    esac
}

string() {
    local text
    text=$(nameless "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/\\t/g' | awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }')
    printf '"%s"' "$(printf '%s' "$text" | tr -d '\000-\037')"
}

# What a file says, or null.
file() {
    local text
    if [ -r "$1" ] && text=$(tr -d '\000' <"$1" 2>/dev/null) && [ -n "$text" ]; then string "$text"; else printf null; fi
}

# What a program prints, or null.
printed() {
    local text
    if command -v "$1" >/dev/null && text=$("$@" 2>&1) && [ -n "$text" ]; then string "$text"; else printf null; fi
}

# A list of objects, one for each file that a glob finds: its folder's name and what the named files say.
listed() {
    local glob=$1 folder comma='' name inner
    shift
    printf '['
    for folder in $glob; do
        [ -d "$folder" ] || continue
        printf '%s{"name":%s' "$comma" "$(string "$(basename "$folder")")"
        for name in "$@"; do
            inner=$(file "$folder/$name")
            printf ',"%s":%s' "$name" "$inner"
        done
        printf '}'
        comma=,
    done
    printf ']'
}

# What may differ from one measurement to the next.
state() {
    printf '{"time":%s,' "$(string "$(date -u +%Y-%m-%dT%H:%M:%SZ)")"
    printf '"load":%s,' "$(file /proc/loadavg)"
    printf '"clocks":%s,' "$(listed '/sys/devices/system/cpu/cpufreq/policy*' related_cpus scaling_governor scaling_cur_freq scaling_max_freq cpuinfo_max_freq)"
    printf '"temperatures":%s,' "$(listed '/sys/class/thermal/thermal_zone*' type temp)"
    # Of the Raspberry Pi: not 0 if the clock was lowered for heat or for want of power.
    printf '"throttled":%s}' "$(printed vcgencmd get_throttled)"
}

machine() {
    printf '{"board":%s,' "$(file /proc/device-tree/model)"
    printf '"cpu":%s,' "$(LC_ALL=C printed lscpu)"
    printf '"cores":%s,' "$cores"
    printf '"features":%s,' "$(string "$(grep -m1 -E '^(Features|flags)' /proc/cpuinfo | cut -d: -f2- || true)")"
    printf '"power_mode":%s,' "$(printed nvpmodel -q)"
    printf '"memory":%s,' "$(string "$(grep -E '^(MemTotal|MemAvailable|SwapTotal|HugePages_Total|AnonHugePages):' /proc/meminfo)")"
    printf '"huge_pages":%s,' "$(file /sys/kernel/mm/transparent_hugepage/enabled)"
    printf '"page_bytes":%s,' "$(getconf PAGESIZE)"
    printf '"kernel":%s,' "$(string "$(uname -srvm)")"
    printf '"libc":%s,' "$(printed getconf GNU_LIBC_VERSION)"
    printf '"system":%s,' "$(string "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null | tr -d '"' || true)")"
    printf '"revision":%s,' "$(string "$revision")"
    printf '"ggml_cpu":%s,' "$(string "${LXMERT_CPU:-native}")"
    printf '"rust":%s,' "$(printed rustc --version)"
    printf '"compiler":%s}' "$(printed "${CXX:-c++}" --version)"
}

# The clock and the heat while something runs: a line each second, of the slowest clock in kHz and the hottest zone in 1/1000 °C.
watch() {
    while sleep 1; do
        slowest=$(cat /sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq 2>/dev/null | sort -n | head -n 1 || true)
        hottest=$(cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null | sort -n | tail -n 1 || true)
        printf '%s %s\n' "${slowest:-0}" "${hottest:-0}"
    done
}

watcher=''
stop_watching() {
    if [ -n "$watcher" ]; then
        kill "$watcher" 2>/dev/null || true
        wait "$watcher" 2>/dev/null || true
        watcher=''
    fi
}
trap stop_watching EXIT
trap 'printf "\nInterrupted. The same command goes on from here.\n" >&2; exit 130' INT TERM

build() {
    say "building"
    cargo build --release --workspace --exclude xtask || fail "the build failed, see above"
    bench=$(cargo build --release --package lxmert-bench --message-format json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*lxmert-bench\)".*/\1/p' | tail -n 1)
    [ -x "$bench" ] || fail "Cargo does not say where lxmert-bench is"
}

# Failed tests are part of the result; they do not end it.
run_tests() {
    local piece=$pieces/tests.json log=$pieces/tests.log status=passed words=(--workspace --exclude xtask)
    case $tests in
        none) printf '{"status":"not run"}' >"$piece" && return ;;
        one) words=(--package lxmert --test golden) ;;
    esac
    if [ -s "$piece" ]; then
        say "tests: done before"
        return
    fi
    say "tests; what they print is in $log"
    cargo test --release --no-fail-fast "${words[@]}" >"$log" 2>&1 || status=failed
    [ $status = passed ] || say "tests failed; that is part of the result, and measuring goes on"
    {
        printf '{"status":"%s","results":%s,' $status "$(string "$(grep '^test result' "$log" || true)")"
        printf '"failures":%s}' "$(string "$(grep -E '^test .* FAILED$|^error' "$log" || true)")"
    } >"$piece.part"
    mv "$piece.part" "$piece"
}

# MiB that a type needs at most: the file, and as much again for matrices that are rearranged.
needed() {
    case $1 in
        f32) echo 1900 ;;
        bf16 | f16) echo 1000 ;;
        *) echo 600 ;;
    esac
}

measure() {
    local type=$1 threads=$2 lowering=$3
    local piece=$pieces/$type-$threads-$lowering.json available status=0
    if [ -s "$piece" ]; then
        say "$type, $threads threads, $lowering: done before"
        return
    fi
    available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    if [ "${available:-0}" -lt "$(needed "$type")" ]; then
        say "$type: left out, it needs $(needed "$type") MiB of memory and $available MiB are free"
        skipped+=("$type, $threads threads, $lowering: $available MiB of memory")
        return
    fi
    say "$type, $threads threads, $lowering"
    local before
    before=$(state)
    watch >"$piece.watch" &
    watcher=$!
    "$bench" --synthetic base --type "$type" --threads "$threads" --lowering "$lowering" --runs "$runs" --cold-starts "$cold_starts" \
        --json >"$piece.report" || status=$?
    stop_watching
    [ $status = 0 ] || fail "lxmert-bench failed on $type, $threads threads, $lowering"
    {
        printf '{"type":%s,"threads":%s,"asked_lowering":%s,' "$(string "$type")" "$threads" "$(string "$lowering")"
        printf '"before":%s,"after":%s,' "$before" "$(state)"
        awk 'NR == 1 { slowest = $1 } { if ($1 < slowest) slowest = $1; if ($2 > hottest) hottest = $2 }
            END { printf "\"slowest_clock_khz\":%s,\"hottest_millidegrees\":%s,", slowest ? slowest : "null", hottest ? hottest : "null" }' "$piece.watch"
        printf '"report":%s}' "$(nameless "$(cat "$piece.report")")"
    } >"$piece.part"
    mv "$piece.part" "$piece"
    rm -f "$piece.watch" "$piece.report"
}

build
run_tests
skipped=()
for type in ${types//,/ }; do
    for count in ${threads//,/ }; do
        for lowering in fastest ggml; do measure "$type" "$count" "$lowering"; done
    done
done

say "writing"
{
    printf '{"format":"lxmert-board-1",\n"machine":%s,\n"tests":%s,\n"measurements":[' "$(machine)" "$(cat "$pieces/tests.json")"
    comma=''
    for type in ${types//,/ }; do
        for count in ${threads//,/ }; do
            for lowering in fastest ggml; do
                piece=$pieces/$type-$count-$lowering.json
                [ -s "$piece" ] || continue
                printf '%s\n%s' "$comma" "$(cat "$piece")"
                comma=,
            done
        done
    done
    printf '],\n"left_out":%s}\n' "$(string "$(printf '%s\n' "${skipped[@]}")")"
} >"$out.part"
mv "$out.part" "$out"
if command -v python3 >/dev/null; then
    python3 -m json.tool "$out" >/dev/null || fail "$out is no JSON: please send it with a word about this"
fi
say "done: $out"
say "Send this one file back: attach it to an issue of the repository, or to a message to whoever gave you this source."
say "It names the board, its CPU, system and clocks, and holds timings; no names of people, hosts or addresses are in it."
