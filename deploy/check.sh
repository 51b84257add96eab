#!/usr/bin/env bash
# Builds the image, brings the stack up as a project of its own, tries what an operator relies on, tears it down.
#   make setup && deploy/check.sh                  needs a Docker engine, Compose, curl
#   WHEELS=DIR deploy/check.sh                     where nothing can be pulled: deploy/compose.test.yml's stand-ins,
#                                                  and torch, torchvision and what they need from wheels in DIR
# Several gateways behind a proxy: deploy/check-replicas.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export COMPOSE_PROJECT_NAME=triggerwall-check GATEWAY_PORT=${GATEWAY_PORT:-18000} PROMETHEUS_PORT=${PROMETHEUS_PORT:-19090} GRAFANA_PORT=${GRAFANA_PORT:-13000}
gateway=http://127.0.0.1:$GATEWAY_PORT prometheus=http://127.0.0.1:$PROMETHEUS_PORT grafana=http://127.0.0.1:$GRAFANA_PORT
. deploy/checking.sh

container() { $compose ps -q "$1"; }
in_gateway() { docker exec "$(container gateway)" "$@"; }
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(container gateway)")" = healthy ]; }
measured() { # PROMQL: true where the sum is greater than 0
    [ "$(call --get --data-urlencode "query=sum($1)" "$prometheus/api/v1/query")" = 200 ] \
        && [ "$(answer '[float(r["value"][1]) > 0 for r in a["data"]["result"]]')" = "[True]" ]
}

step build
$compose build --quiet
image=$($compose config | .venv/bin/python -c "import sys, yaml; print(yaml.safe_load(sys.stdin)['services']['gateway']['image'])")
docker image ls "$image"
docker run --rm --read-only --network none "$image" inspect | head -8
for command in demo lab bench; do docker run --rm "$image" $command --help >/dev/null; done
expect none "$(docker run --rm --entrypoint sh "$image" -c 'command -v gcc cc ld make; echo none')" "compilers"
expect none "$(docker run --rm --entrypoint sh "$image" -c \
    'cd /opt/venv/lib/python3*/site-packages && ls -d torch >/dev/null && ls -d app bench detectors lab models mlxtend matplotlib 2>/dev/null || echo none')" \
    "our packages, and the demo's, among the installed ones"

step up
$compose up --detach
wait_for 120 healthy
echo "ok   healthy"
expect 10001 "$(in_gateway id -u)" "user id"
expect none "$(in_gateway sh -c 'for f in /srv/triggerwall /opt/venv /bundle /etc; do touch $f/x 2>/dev/null && echo $f; done; echo none')" \
    "writable parts of image and bundle"
expect "true" "$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}}' "$(container gateway)")" "read-only root"
expect 0000000000000000 "$(in_gateway sed -n 's/^CapEff:\s*//p' /proc/1/status)" "capabilities"
expect triggerwall "$(in_gateway cat /proc/1/comm)" "process 1"

step "before a calibration"
expect 503 "$(call "$gateway/readyz")" /readyz
expect 503 "$(call -H 'Content-Type: image/png' --data-binary "@$work/digits/0.png" "$gateway/classify")" /classify
expect urn:triggerwall:problem:not-calibrated "$(answer 'a["type"]')" "the reason"

step calibrate
expect 401 "$(call -F "archive=@$work/digits.zip" "$gateway/calibrate")" "without the key"
expect 201 "$(call -F "archive=@$work/digits.zip" -H "X-API-Key: $TRIGGERWALL_ADMIN_KEY" "$gateway/calibrate")" "with the key"
calibration=$(answer 'a["id"]')
expect 200 "$(call "$gateway/readyz")" /readyz

step classify
parts=(); for file in "$work"/digits/*.png; do parts+=(-F "images=@$file"); done
expect 200 "$(call "${parts[@]}" "$gateway/classify")" /classify
expect "20 $calibration" "$(answer '"{} {}".format(len(a["results"]), a["calibration"])')" "images, judged by"
echo "     $(answer '{v: sum(r["verdict"] == v for r in a["results"]) for v in ("accepted", "rejected")}')"

step "a large upload goes to the data volume, not into memory"
head -c 100000000 /dev/zero > "$work/zeros"
expect 422 "$(call -F "archive=@$work/zeros" -H "X-API-Key: $TRIGGERWALL_ADMIN_KEY" "$gateway/calibrate")" "100 MB that are no zip"
expect none "$(in_gateway sh -c 'find /data -size +10M && echo none')" "left behind"

step Prometheus
wait_for 60 measured 'triggerwall_images_total'
for query in 'triggerwall_images_total' 'triggerwall_verdicts_total{verdict="accepted"}' 'up{job="triggerwall"}' 'triggerwall_calibration_info'; do
    wait_for 30 measured "$query"
    echo "ok   sum($query) = $(answer 'a["data"]["result"][0]["value"][1]')"
done

expect 200 "$(call "$prometheus/api/v1/rules?type=alert")" "alerting rules"
expect 14 "$(answer 'sum(len(g["rules"]) for g in a["data"]["groups"])')" "alerts"

step Grafana
answers() { [ "$(call "$1")" = 200 ]; }
if [ -n "${WHEELS:-}" ]; then # a stand-in: only what it would read
    wait_for 60 answers "$grafana/dashboards/triggerwall.json"
    expect 200 "$(call "$grafana/provisioning/datasources/prometheus.yml")" "data source"
else
    wait_for 60 answers "$grafana/api/health"
    expect 200 "$(call "$grafana/api/dashboards/uid/triggerwall")" "dashboard, without a login"
    expect Triggerwall "$(answer 'a["dashboard"]["title"]')" "its title"
fi

step "decisions and quarantine"
decided() { [ "$(call "${admin[@]}" "$gateway/decisions?limit=1000")" = 200 ] && [ "$(answer 'len(a["decisions"])')" = "$1" ]; }
wait_for 10 decided 20
echo "ok   20 decisions"
rejected=$(answer 'sum(d["verdict"] == "rejected" for d in a["decisions"])')
expect 401 "$(call "$gateway/decisions")" "without the key"
quarantined() { [ "$(call "${admin[@]}" "$gateway/quarantine")" = 200 ] && [ "$(answer 'a["total"]')" = "$1" ]; }
wait_for 10 quarantined "$rejected"
echo "ok   $rejected images in quarantine"

step restart
$compose restart gateway
wait_for 120 healthy
expect 200 "$(call "$gateway/readyz")" /readyz
expect 200 "$(call -H 'Content-Type: image/png' --data-binary "@$work/digits/0.png" "$gateway/classify")" /classify
expect "$calibration" "$(answer 'a["calibration"]')" "judged by"
wait_for 10 decided 21
echo "ok   21 decisions: those from before, and the new one"

step "kill -9, and a new container on the same volume"
docker kill "$(container gateway)" >/dev/null
$compose up --detach --force-recreate gateway
wait_for 120 healthy
expect 200 "$(call -H 'Content-Type: image/png' --data-binary "@$work/digits/0.png" "$gateway/classify")" /classify
expect "$calibration" "$(answer 'a["calibration"]')" "judged by"

step "stop while a request is under way: its image is still being sent"
(head -c 60 "$work/digits/0.png"; sleep 4; tail -c +61 "$work/digits/0.png") \
    | call -X POST -H 'Content-Type: image/png' -T - "$gateway/classify" > "$work/status" & request=$!
sleep 2
started=$SECONDS
docker stop --time 60 "$(container gateway)" >/dev/null
wait $request
expect 200 "$(cat "$work/status")" "that request's answer"
expect "0 false" "$(docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' "$($compose ps -aq gateway 2>/dev/null || $compose ps -q gateway)")" "exit code, out of memory"
echo "     stopped after $((SECONDS - started)) s"
