#!/usr/bin/env bash
# Brings three gateways up behind the proxy, with PostgreSQL, as a project of its own; calibrates, rolls back, kills,
# restarts and scales under traffic; asks whether every answer kept its promise; tears it down. Used like check.sh:
#   make setup && deploy/check-replicas.sh                  or   WHEELS=DIR deploy/check-replicas.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export COMPOSE_PROJECT_NAME=triggerwall-replicas COMPOSE_PROFILES=replicas EXTRAS=postgresql
export GATEWAY_PORT= PROXY_PORT=${PROXY_PORT:-18000} PROMETHEUS_PORT=${PROMETHEUS_PORT:-19090} GRAFANA_PORT=${GRAFANA_PORT:-13000}
export POSTGRES_PASSWORD=$RANDOM$RANDOM$RANDOM TRIGGERWALL_CALIBRATION_LAG_S=${TRIGGERWALL_CALIBRATION_LAG_S:-10}
export TRIGGERWALL_DATABASE_URL=postgresql://triggerwall:$POSTGRES_PASSWORD@postgres/triggerwall
proxy=http://127.0.0.1:$PROXY_PORT prometheus=http://127.0.0.1:$PROMETHEUS_PORT lag=$TRIGGERWALL_CALIBRATION_LAG_S
. deploy/checking.sh
image=$work/digits/0.png events=$work/events log=$work/log traffic=
touch "$events" "$log"

happened() { echo "$(date +%s.%N) $*" >> "$events"; }
gateways() { docker ps --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter label=com.docker.compose.service=gateway; }
address() { echo "http://$(docker port "$1" 8000 | head -1)"; }
classify() { call -H 'Content-Type: image/png' --data-binary "@$image" "$1/classify"; }
for_each() { # COMMAND...: true where it is for every gateway's address
    for each in $(gateways); do "$@" "$(address "$each")" || return 1; done
}
ready() { [ "$(call "$1/readyz")" = 200 ]; }
unready() { [ "$(call "$1/readyz")" = 503 ] && [ "$(classify "$1")" = 503 ] && [ "$(answer 'a["type"]')" = urn:triggerwall:problem:calibration-stale ]; }
enforces() { [ "$(classify "$2")" = 200 ] && [ "$(answer 'a["calibration"]')" = "$1" ]; }
judges() { [ "$(curl --silent "$1/metrics" | awk '/^triggerwall_images_total/ {print ($2 > 0)}')" = 1 ]; }
live() { [ "$(gateways | wc -l)" = "$1" ] && for_each lives; }
lives() { [ "$(call "$1/livez")" = 200 ]; }
all_enforce() { # ID: prints how long it took since the activation was answered
    local since; since=$(tail -1 "$events" | cut -d' ' -f1)
    wait_for "$lag" for_each enforces "$1"
    echo "ok   all $(gateways | wc -l) enforce $1 after $(echo "$(date +%s.%N) $since" | awk '{printf "%.1f", $1 - $2}') s (bound: $lag)"
}
calibrate() { # FORM...: leaves its id in $calibration
    local asked; asked=$(date +%s.%N)
    expect 201 "$(call -F "archive=@$work/digits.zip" "$@" "${admin[@]}" "$proxy/calibrate")" "calibrate through the proxy"
    calibration=$(answer 'a["id"]')
    happened activated "$asked" "$calibration"
}
stop_traffic() { [ -z "$traffic" ] || { kill "$traffic"; wait "$traffic" || true; traffic=; }; }
before_finish=stop_traffic

step build
$compose build --quiet

step "three gateways behind the proxy"
$compose up --detach --scale gateway=3
wait_for 180 live 3
echo "ok   3 live"
expect 503 "$(call "$proxy/readyz")" "/readyz through the proxy, before a calibration"
expect 503 "$(classify "$proxy")" "/classify"
expect urn:triggerwall:problem:not-calibrated "$(answer 'a["type"]')" "the reason, from a gateway"
expect 404 "$(call "$proxy/metrics")" "/metrics, which would be those of any one"

step "calibrate through the proxy"
calibrate
first=$calibration
all_enforce "$first"
wait_for 10 ready "$proxy"

step "traffic"
.venv/bin/python deploy/traffic.py drive "$proxy" "$work" "$log" & traffic=$!
wait_for 60 for_each judges
echo "ok   all 3 judge"

step "activate another one, and roll back"
calibrate -F alpha=0.02
all_enforce "$calibration"
asked=$(date +%s.%N)
expect 200 "$(call -X POST "${admin[@]}" "$proxy/calibrations/$first/activate")" "roll back"
happened activated "$asked" "$first"
all_enforce "$first"

step "kill -9 one"
asked=$(date +%s.%N)
docker kill "$(gateways | head -1)" >/dev/null
happened killed "$asked"
sleep 5
expect 2 "$(gateways | wc -l)" "gateways left"
expect 200 "$(classify "$proxy")" "/classify"

step "restart PostgreSQL"
$compose restart --timeout 10 postgres
sleep 3
expect 200 "$(classify "$proxy")" "/classify"
calibrate -F alpha=0.03
all_enforce "$calibration"

step "no PostgreSQL for longer than the bound"
$compose stop --timeout 10 postgres
wait_for $((lag + 10)) for_each unready
echo "ok   none judges any more"
expect 503 "$(classify "$proxy")" "/classify through the proxy"
expect urn:triggerwall:problem:calibration-stale "$(answer 'a["type"]')" "the reason, from a gateway"
$compose start postgres
wait_for $((3 * lag)) for_each ready
wait_for 10 ready "$proxy"
echo "ok   ready again"

step "scale to four"
$compose up --detach --no-recreate --scale gateway=4
wait_for 180 live 4
wait_for 60 for_each judges
wait_for "$lag" for_each enforces "$calibration"
echo "ok   all 4 judge, by the same calibration"
watched() {
    [ "$(call --get --data-urlencode 'query=count(up{job="triggerwall"} == 1)' "$prometheus/api/v1/query")" = 200 ] \
        && [ "$(answer '[r["value"][1] for r in a["data"]["result"]]')" = "['4']" ]
}
wait_for 60 watched
echo "ok   Prometheus sees 4"

step "one console, one quarantine"
page=$(curl --silent --cookie-jar "$work/cookies" "$proxy/console/sign-in")
csrf=$(sed -n 's/.*name="csrf" value="\([^"]*\)".*/\1/p' <<<"$page" | head -1)
expect 303 "$(call --cookie "$work/cookies" --cookie-jar "$work/cookies" -d "csrf=$csrf" -d name=Ada -d "key=$TRIGGERWALL_ADMIN_KEY" "$proxy/console/sign-in")" "sign in, through the proxy"
cookie=$(awk '/triggerwall_console/ {print $7}' "$work/cookies")
signed_in() { [ "$(call --header "Cookie: triggerwall_console=$cookie" "$1/console/quarantine")" = 200 ]; }
signed_out() { [ "$(call --header "Cookie: triggerwall_console=$cookie" "$1/console/quarantine")" = 303 ]; }
for_each signed_in && echo "ok   every gateway knows the session"
csrf=$(curl --silent --header "Cookie: triggerwall_console=$cookie" "$proxy/console" | sed -n 's/.*name="csrf" value="\([^"]*\)".*/\1/p' | head -1)
expect 303 "$(call --header "Cookie: triggerwall_console=$cookie" -d "csrf=$csrf" "$proxy/console/sign-out")" "sign out"
for_each signed_out && echo "ok   no gateway knows it any more"
expect 200 "$(call "${admin[@]}" "$proxy/quarantine?limit=1")" "quarantine"
sha=$(answer 'a["images"][0]["sha256"]')
shows() { [ "$(call "${admin[@]}" "$1/quarantine/$sha/image")" = 200 ]; }
for_each shows && echo "ok   every gateway shows the image"

step "what the traffic was told"
stop_traffic
sleep 2
.venv/bin/python deploy/traffic.py judge "$proxy" "$log" "$events"
