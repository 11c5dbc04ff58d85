#!/usr/bin/env bash
# Everything that only a real GPU can show, in one call of under ten minutes.
#
#   benchmarks/gpu_check.sh                    all parts on the GPU
#   benchmarks/gpu_check.sh --rehearse         all parts on the emulated GPU, small shapes
#   benchmarks/gpu_check.sh --only bench,peers some parts
#
# Parts: doctor, tests (all that are marked gpu: ops, schedules, random programs), parity (training
# on GPU and CPU), sanitizer, bench, profile, peers (where PEERS_SCRIPT names a script that times
# other frameworks with the same options as gpu.py), table. Each has its own limit; a part that
# fails does not stop the others. Results go to $OUT (default: ./gpu_check).
#
# PYTHON: the interpreter, with pytest, hypothesis and (better) pytest-xdist. PEERS_PYTHON: that of
# PEERS_SCRIPT. WHEELS: a folder of wheels to install first (default: .whl, if it exists).
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

rehearse=0 only=doctor,tests,parity,sanitizer,bench,profile,peers,table
while [ $# -gt 0 ]; do
  case "$1" in
    --rehearse) rehearse=1 ;;
    --only) only="$2"; shift ;;
    *) sed -n "2,16p" "$0"; exit 2 ;;
  esac
  shift
done

OUT="${OUT:-$PWD/gpu_check}"
mkdir -p "$OUT"
PYTHON="${PYTHON:-python3}"
WHEELS="${WHEELS:-.whl}"
log="$OUT/check.log"
: >"$log"
: >"$OUT/summary.txt"
export BENCH_OUT="$OUT" PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
rm -f "$OUT"/gpu_*.jsonl "$OUT"/gpu_*.txt

if compgen -G "$WHEELS/*.whl" >/dev/null; then
  site="$(mktemp -d)"
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" \
    "$WHEELS"/*.whl >>"$log" 2>&1 || echo "the wheels in $WHEELS could not be installed"
  export PYTHONPATH="$PYTHONPATH:$site"
fi

# Run a Python file or module on the emulated GPU in place of a real one.
emulated='import runpy, sys
from tests.cuda import stand_in
stand_in.install()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")'

if [ "$rehearse" = 1 ]; then
  export GRAPHNN_STAND_IN_GPU=1
  run=("$PYTHON" -c "$emulated")
  sizes=(--tiny --quick) steps=20 tiny=(--tiny)
  picked=(-k "test_op and (tanh or cumsum) or training or captures")
  limits="doctor=30 tests=240 parity=200 sanitizer=30 bench=240 profile=60 peers=120 table=20"
else
  run=("$PYTHON")
  sizes=() steps=200 tiny=() picked=()
  # Most of the time goes to NVRTC: processes share it.
  "$PYTHON" -c "import xdist" 2>/dev/null && picked=(-n "$(nproc)")
  # All limits and what is killed late stay under ten minutes.
  limits="doctor=20 tests=190 parity=60 sanitizer=50 bench=110 profile=40 peers=70 table=10"
fi

limit_of() { tr ' ' '\n' <<<"$limits" | sed -n "s/^$1=//p"; }

# part NAME COMMAND...: run it within its limit; its output goes to the log.
part() {
  local name="$1" started="$SECONDS" status word
  shift
  case ",$only," in *",$name,"*) ;; *) return ;; esac
  echo "==== $name" >>"$log"
  # An interrupt lets pytest say what has failed so far.
  timeout -s INT -k 5 "$(limit_of "$name")" "$@" >>"$log" 2>&1
  status=$?
  case "$status" in
    0) word=ok ;;
    5) word="nothing to run" ;;
    124 | 137) word="stopped after $(limit_of "$name") s" ;;
    *) word="FAILED ($status)" ;;
  esac
  printf '%-10s %-24s %4d s\n' "$name" "$word" "$((SECONDS - started))" | tee -a "$OUT/summary.txt"
}

skip() { case ",$only," in *",$1,"*) printf '%-10s %s\n' "$1" "$2" | tee -a "$OUT/summary.txt" ;; esac; }

part doctor "$PYTHON" -m graphnn doctor
# Warnings of packages that are newer there than here are no failures of ours.
part tests "$PYTHON" -m pytest -q -m gpu tests/cuda -p no:cacheprovider -W default "${picked[@]}"
part parity "${run[@]}" benchmarks/gpu_parity.py --steps "$steps" "${tiny[@]}"
if [ "$rehearse" = 1 ]; then
  skip sanitizer "left out: the emulator checks every access itself"
elif command -v compute-sanitizer >/dev/null; then
  part sanitizer compute-sanitizer --error-exitcode 9 "$PYTHON" benchmarks/gpu.py \
    --tiny --quick --work layernorm,softmax_xent,mlp_tiny --out "$OUT/sanitized.tmp"
  rm -f "$OUT/sanitized.tmp"
else
  skip sanitizer "left out: there is no compute-sanitizer"
fi
part bench "${run[@]}" benchmarks/gpu.py --work all "${sizes[@]}" --out "$OUT/gpu_graphnn.jsonl"
part profile "${run[@]}" benchmarks/gpu.py --work gpt2_124m,mlp_b64 --profile "${sizes[@]}" \
  --out "$OUT/gpu_profile.jsonl"
if [ -n "${PEERS_SCRIPT:-}" ]; then
  works=chain,softmax_xent,layernorm,mlp_tiny,mlp_b64,mlp_b4096,gpt2_124m
  device=cuda
  [ "$rehearse" = 1 ] && device=cpu
  peers() {
    local peer status=0
    for peer in ${PEERS:-torch-compile-graph jax}; do
      "${PEERS_PYTHON:-$PYTHON}" "$PEERS_SCRIPT" --peer "$peer" --work "$works" --device "$device" \
        "${sizes[@]}" --out "$OUT/gpu_peers.jsonl" || status=1
    done
    return "$status"
  }
  export PEERS_SCRIPT PYTHON OUT
  part peers bash -c "sizes=(${sizes[*]:-}); works=$works; device=$device; $(declare -f peers); peers"
else
  skip peers "left out: PEERS_SCRIPT names none"
fi
found=()
for file in "$OUT/gpu_graphnn.jsonl" "$OUT/gpu_peers.jsonl"; do
  [ -f "$file" ] && found+=("$file")
done
case ",$only," in
  *,table,*)
    [ ${#found[@]} -gt 0 ] && "$PYTHON" benchmarks/gpu_table.py "${tiny[@]}" "${found[@]}" | tee -a "$OUT/summary.txt"
    grep -E "^(ok |BAD) " "$log" | tee -a "$OUT/summary.txt"
    grep -E "^(=+ )?.*[0-9]+ (passed|failed)" "$log" | tail -1 | tee -a "$OUT/summary.txt"
    ;;
esac
! grep -qE "FAILED|stopped" "$OUT/summary.txt"
