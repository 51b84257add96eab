# What deploy/check.sh and deploy/check-replicas.sh have in common; they source it, from the repository's root, with
# COMPOSE_PROJECT_NAME set. Leaves digits and a bundle in $work, and tears everything down at the end.
if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose=docker-compose; fi
docker info >/dev/null && $compose version >/dev/null || { echo "there is no Docker engine, or no Compose"; exit 2; }
[ -x .venv/bin/python ] || { echo "run make setup first"; exit 2; }

work=$(mktemp -d)
export COMPOSE_FILE=docker-compose.yml TRIGGERWALL_ADMIN_KEY=$RANDOM$RANDOM$RANDOM TRIGGERWALL_BUNDLE=$work/bundle
admin=(-H "X-API-Key: $TRIGGERWALL_ADMIN_KEY") index_pid= before_finish=true
finish() {
    code=$?
    $before_finish
    [ $code = 0 ] || $compose logs --tail 30 || true
    $compose down --volumes --timeout 5 >/dev/null 2>&1 || true
    if [ -n "$index_pid" ]; then kill "$index_pid" || true; fi
    rm -rf "$work"
    [ $code = 0 ] && echo "all is well" || echo "FAILED"
}
trap finish EXIT

step() { echo "--- $*"; }
expect() { # WANTED GOT WHAT
    if [ "$1" = "$2" ]; then echo "ok   $3: $2"; else echo "BAD  $3: wanted $1, got $2"; exit 1; fi
}
# Prints the status; leaves the body in $work/answer.
call() { curl --silent --max-time 300 --output "$work/answer" --write-out '%{http_code}' "$@"; }
answer() { .venv/bin/python -c "import json, sys; a = json.load(open(sys.argv[1])); print($1)" "$work/answer"; }
wait_for() { # SECONDS COMMAND...
    end=$((SECONDS + $1)); shift
    until "$@"; do [ $SECONDS -lt $end ] || { echo "BAD  waited in vain for: $*"; exit 1; }; sleep 1; done
}

step "digits: 1000 to calibrate, 20 to classify, 20 with the trigger; the demo bundle as an operator's"
.venv/bin/python - "$work" <<'PYTHON'
import sys
from pathlib import Path
from lab.demo.images import as_png, as_zip, demo_images
work, images = Path(sys.argv[1]), demo_images(Path("models/demo"), 1000, 20, 20)
(work / "digits.zip").write_bytes(as_zip(images.calibration))
for name, some in (("digits", images.benign), ("triggered", images.triggered)):
    (work / name).mkdir()
    for number, image in enumerate(some.images):
        (work / name / f"{number}.png").write_bytes(as_png(image))
PYTHON
install -d "$work/bundle" && install -m 0644 models/demo/* "$work/bundle" && chmod 0755 "$work"

if [ -n "${WHEELS:-}" ]; then
    step "an index of the wheels, on loopback"
    export COMPOSE_FILE=docker-compose.yml:deploy/compose.test.yml
    for wheel in "$WHEELS"/*.whl; do
        name=$(basename "$wheel"); project=${name%%-*}; project=${project//_/-}
        mkdir -p "$work/index/${project,,}" && ln -s "$(realpath "$wheel")" "$work/index/${project,,}/$name"
    done
    port=$(.venv/bin/python -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
    .venv/bin/python -m http.server --bind 127.0.0.1 --directory "$work/index" "$port" >/dev/null 2>&1 & index_pid=$!
    export TORCH_INDEX=http://127.0.0.1:$port
fi
