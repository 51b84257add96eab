"""Every knob of the gateway, with its unit, default and bounds, in one typed object.

Flags (keyword arguments) win over `TRIGGERWALL_*` environment variables, those over the YAML file that
`config` or `TRIGGERWALL_CONFIG` names, and that over the defaults.
"""

import ipaddress
import math
import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.policy import Mode

__all__ = ["DetectorName", "ImageFormat", "Settings", "SettingsError", "unknown_variables"]

DetectorName = Literal[
    "profile", "psc", "spc", "nspc", "label_profile", "strip", "teco", "shrinkpad", "deepsweep", "frequency"
]
ImageFormat = Literal["PNG", "JPEG", "WEBP", "BMP", "PPM", "GIF", "TIFF", "AVIF"]
MEBIBYTE = 1024 * 1024


class SettingsError(ValueError):
    """Raised while settings are gathered: a configuration file that is missing or is no mapping."""


def _split(value: Any) -> Any:
    """`psc,spc` as well as a YAML or Python list: environment variables hold text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


CommaSeparated = BeforeValidator(_split)


def _named(value: Any) -> Any:
    """`shop:key1,app:key2` as well as a mapping. JSON is refused: braces and quotes would end up in a key."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        raise ValueError("caller_keys are name:key, separated by commas, and no JSON")
    pairs = [part.strip().partition(":") for part in value.split(",") if part.strip()]
    if any(not (name.strip() and key.strip()) for name, _, key in pairs):
        raise ValueError("caller_keys are name:key, separated by commas")
    if len({name.strip() for name, _, _ in pairs}) < len(pairs):
        raise ValueError("caller_keys names one twice")
    return {name.strip(): key.strip() for name, _, key in pairs}


Named = BeforeValidator(_named)
EmptyIsNone = BeforeValidator(lambda value: value or None)  # `ADMIN_KEY=` is no key, not a key of no letters


class Settings(BaseSettings):
    """The configuration of one gateway; immutable."""

    model_config = SettingsConfigDict(env_prefix="TRIGGERWALL_", extra="forbid", frozen=True)

    config: Path | None = Field(default=None, description="YAML file with any of the settings below.")

    # --- what is served, and where ----------------------------------------------------------------
    bundle: Path = Field(default=Path("models/demo"), description="Directory of the model bundle.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to bind.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to bind; 0 picks a free one.")
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="TCP port of its own for everything but POST /classify, inference, /info and health; "
        "`port` answers 404 to the rest. None: one port for all.",
    )
    admin_host: str = Field(default="127.0.0.1", min_length=1, description="Address to bind `admin_port` on.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, CommaSeparated] = Field(
        default=("127.0.0.1", "::1"),
        description="Addresses and networks (10.0.0.0/8) of reverse proxies, whose X-Forwarded-For and "
        "X-Forwarded-Proto say who asks, and how.",
    )
    trust_model_code: bool = Field(
        default=False,
        description="Run programs that the bundle holds (TorchScript): only where you trust its author.",
    )
    device: str = Field(
        default="auto", description="`auto` (CUDA where there is one), or a torch device: cpu, cuda:1."
    )
    data_dir: Path = Field(default=Path("var"), description="Directory for everything the gateway keeps.")
    database_url: Annotated[SecretStr | None, EmptyIsNone] = Field(
        default=None,
        description="Database of calibrations, decisions and the quarantine's index: "
        "postgresql://user:password@host/name; an SQLite file in `data_dir` where it is not set.",
    )
    calibration_lag_s: float = Field(
        default=10,
        ge=0.5,
        le=3600,
        description="Another gateway's activation is followed within so many seconds. With `database_url`, a "
        "gateway that could not ask for longer what is active judges nothing until it can.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="`text`, `json` (one object a line), or `auto`: text on a terminal, JSON elsewhere.",
    )
    otlp_endpoint: Annotated[str | None, EmptyIsNone] = Field(
        default=None,
        pattern=r"^https?://",
        description="OTLP/HTTP collector that gets a trace of every request, as http://collector:4318; needs "
        "the `tracing` packages.",
    )

    # --- what is enforced -------------------------------------------------------------------------
    mode: Mode = Field(
        default=Mode.ENFORCE, description="`enforce` withholds suspicious predictions; `monitor` flags."
    )
    on_detector_failure: Literal["reject", "error"] = Field(
        default="reject",
        description="What becomes of an image that a detector or the classifier fails on, by an exception, "
        "for lack of memory, or with a score that is not a number: rejected, or a 503. No label leaves.",
    )
    thresholds: Literal["conformal", "fixed"] = Field(
        default="conformal",
        description="`conformal` keeps the false-positive budget; `fixed` uses the papers' T.",
    )
    conditioning: Literal["class", "marginal"] = Field(
        default="class", description="Thresholds per predicted class, or one for all."
    )
    ties: Literal["conservative", "randomised"] = Field(
        default="conservative",
        description="Scores equal to the threshold: `conservative` lets all pass; `randomised` rejects the "
        "share of them that spends the whole budget, by a keyed hash of the pixels.",
    )
    alpha: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="False-positive budget of a calibration that names none: share of images.",
    )
    suspects: Literal["remove", "report"] = Field(
        default="remove",
        description="Calibration images that very likely carry a trigger: left out, or only reported.",
    )
    contamination: float = Field(
        default=0.0,
        ge=0,
        le=0.2,
        description="Share of each label's calibration images, besides the suspects, that may be poisoned. "
        "Thresholds withstand it; up to contamination / (1 - contamination) is added to the budget.",
    )
    detectors: Annotated[tuple[DetectorName, ...], NoDecode, CommaSeparated] = Field(
        default=("profile", "psc", "spc"), min_length=1, description="Detectors; each has to clear an image."
    )
    profile_preset: Literal["fast", "balanced", "thorough"] = Field(
        default="thorough",
        description="The profile's probes: `thorough` asks 6 of every image; `balanced` 6 and `fast` 4, but "
        "under 4 and 3 on average, as the first two clear usual images. On colour images they lose power.",
    )
    packed_weights: bool = Field(
        default=True,
        description="On a CPU, hold convolution weights a second time, as its kernels read them: most "
        "networks take 10 to 50 % less time. In float32, where the network can be traced.",
    )
    psc_omega: float = Field(default=1.5, gt=1, le=100, description="IBD-PSC's ω: factor on γ and β.")
    psc_n: int = Field(default=5, ge=1, le=64, description="IBD-PSC's n: number of amplified networks.")
    psc_xi: float = Field(default=0.6, ge=0, lt=1, description="IBD-PSC's ξ: benign error rate that picks k.")
    psc_engine: Literal["fork", "copies"] = Field(
        default="fork",
        description="`fork`: one network that behaves as n + 1; `copies`: n resident networks.",
    )
    psc_precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="Arithmetic of the fork engine; a calibration is bound to it. float16 is slow on CPUs.",
    )
    psc_channels_last: bool = Field(
        default=False, description="Lay the fork engine's images out channels last."
    )
    psc_fold: bool = Field(
        default=False, description="Fold BatchNorm into convolutions (a second set of weights)."
    )
    psc_compile: bool = Field(
        default=False,
        description="Compile the fork engine (minutes at start-up, a second set of weights); eager where "
        "there is no compiler.",
    )
    spc_scales: Annotated[tuple[float, ...], NoDecode, CommaSeparated] = Field(
        default=(3, 5, 7, 9, 11),
        min_length=1,
        max_length=32,
        description="SCALE-UP's S: pixel multipliers, each > 0.",
    )
    strip_overlays: int = Field(
        default=16,
        ge=1,
        le=100,
        description="STRIP's N: benign images that each image is blended with, kept from the calibration.",
    )
    strip_blend: Literal["convex", "superimposed"] = Field(
        default="convex", description="STRIP's blend: half of either image, or their sum, clipped."
    )

    # --- watching and learning from traffic --------------------------------------------------------
    drift_run_length: float = Field(
        default=1e5,
        ge=1000,
        le=1e12,
        description="Within n images like those of the calibration, the chance of a drift alarm is at most "
        "n / this; longer is later to notice.",
    )
    sketch_interval_s: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        description="With `database_url`, gateways tell each other this often, in seconds, what they learnt "
        "of traffic and whether it drifts: sums and figures, no images.",
    )
    learn_from_traffic: bool = Field(
        default=False,
        description="In monitor mode, measure a share of the traffic to calibrate on it. Kept in memory, as "
        "figures and not as images; a restart begins anew.",
    )
    learn_images: int = Field(
        default=2000, ge=20, le=50_000, description="Images of traffic to calibrate on, at most."
    )
    learn_sample: float = Field(
        default=0.25, gt=0, le=1, description="Share of the traffic that is measured, as the device has time."
    )
    learn_contamination: float = Field(
        default=0.1, ge=0, le=0.2, description="Share of the traffic learnt from that may be poisoned."
    )
    enforce_after_learning: bool = Field(
        default=False,
        description="Once `learn_images` are measured: calibrate on them, activate that, and enforce.",
    )

    # --- what is kept of traffic --------------------------------------------------------------------
    decisions: bool = Field(
        default=True, description="Keep a row of every decision: digests, labels and scores, no images."
    )
    decision_flush_ms: int = Field(
        default=500,
        ge=10,
        le=1000,
        description="Decisions are written this often, in milliseconds: what a crash may lose.",
    )
    decision_queue: int = Field(
        default=20_000,
        ge=64,
        le=10_000_000,
        description="Decisions that may wait; more are not kept.",
    )
    recording_bytes: int = Field(
        default=64 * MEBIBYTE,
        ge=MEBIBYTE,
        description="Bytes of images that may wait for their digest, and as many again for the quarantine.",
    )
    decision_days: float = Field(
        default=90, gt=0, le=36_500, description="Days that a decision is kept, at most."
    )
    decision_rows: int = Field(
        default=1_000_000, ge=1, description="Decisions that are kept, at most: the newest."
    )
    quarantine: bool = Field(
        default=True,
        description="Keep rejected and flagged images as they came, to be looked at. Off: no image is kept.",
    )
    quarantine_url: Annotated[str | None, EmptyIsNone] = Field(
        default=None,
        description="Where: a folder, or an fsspec URL like s3://bucket/path; `quarantine` in `data_dir` by "
        "default.",
    )
    quarantine_sample: float = Field(
        default=0.0, ge=0, le=1, description="Share of accepted images that are kept, too."
    )
    quarantine_days: float = Field(
        default=30, gt=0, le=36_500, description="Days that an image without a mark is kept, at most."
    )
    reviewed_days: float = Field(
        default=365, gt=0, le=36_500, description="Days that an image with a mark is kept, at most."
    )
    quarantine_images: int = Field(default=10_000, ge=1, description="Images that are kept, at most.")
    quarantine_bytes: int = Field(
        default=1024 * MEBIBYTE, ge=1024, description="Bytes of images that are kept, at most."
    )

    # --- who may do what --------------------------------------------------------------------------
    admin_key: Annotated[SecretStr | None, EmptyIsNone] = Field(
        default=None,
        description="Key for the admin paths (X-API-Key). Without it they answer on a loopback bind only.",
    )
    console_session_minutes: int = Field(
        default=480, ge=1, le=10_080, description="Minutes after which the console asks for the key again."
    )
    caller_keys: Annotated[dict[str, SecretStr], NoDecode, Named] = Field(
        default={},
        description="Keys of callers, as name:key,name:key. With any, POST /classify takes these and "
        "the admin key, and no other caller.",
    )
    open_scores: bool = Field(
        default=False,
        description="Tell anybody exact scores and p-values, and take `?full=true` from anybody; else they "
        "need the admin key, and others are told coarse ones.",
    )
    suggest_labels: bool = Field(
        default=True,
        description="Tell the admin what each suspicious image most likely shows; costs seven more forward "
        "passes of such an image. Not of remote classifiers: the console asks them when somebody looks.",
    )
    rate_limit: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Images a second that one caller may send (by key, else by address), admin key excepted. "
        "None: any number.",
    )
    rate_burst: int = Field(
        default=256, ge=1, le=1_000_000, description="Images that a caller may send at once after a pause."
    )
    near_duplicate_run: int = Field(
        default=32,
        ge=0,
        le=63,
        description="Near-duplicates among one caller's last 64 images that are told as a run, in log and "
        "metrics; 0 looks for none.",
    )
    near_duplicate_distance: float = Field(
        default=0.02,
        gt=0,
        le=1,
        description="Images are near-duplicates up to this mean difference in brightness (0 to 1) "
        "over an 8×8 grid.",
    )

    # --- a classifier behind an endpoint -----------------------------------------------------------
    remote_url: str | None = Field(
        default=None, description="Where a remote classifier answers, instead of the bundle's `url`."
    )
    remote_credential: Annotated[SecretStr | None, EmptyIsNone] = Field(
        default=None,
        description="Sent to the remote classifier as it is, such as `Bearer abc`; never logged.",
    )
    remote_credential_header: str = Field(
        default="Authorization", pattern=r"^[A-Za-z0-9-]+$", description="Header that carries the credential."
    )
    remote_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authorities that the remote classifier's TLS is checked by.",
    )
    remote_timeout_s: float = Field(
        default=10, gt=0, le=3600, description="Longest wait for one whole answer, in seconds."
    )
    remote_retries: int = Field(
        default=2, ge=0, le=10, description="Attempts after the first, within the request's deadline."
    )
    remote_concurrency: int = Field(
        default=4, ge=1, le=256, description="Requests to the remote classifier at a time, and connections."
    )
    remote_breaker_failures: int = Field(
        default=5, ge=1, description="Failed attempts in a row after which it is left alone."
    )
    remote_breaker_rest_s: float = Field(
        default=5, gt=0, le=3600, description="For how long, in seconds; then one call tries again."
    )
    remote_fail_open: bool = Field(
        default=False,
        description="Let images through as `uninspected` where the remote classifier gave a label and then "
        "answered no more questions. Otherwise nothing leaves that was not inspected.",
    )

    # --- limits -----------------------------------------------------------------------------------
    max_body_bytes: int = Field(default=32 * MEBIBYTE, ge=1024, description="Largest request body in bytes.")
    max_calibration_body_bytes: int = Field(
        default=1024 * MEBIBYTE, ge=1024, description="Largest body of POST /calibrate in bytes."
    )
    max_artefact_bytes: int = Field(
        default=64 * MEBIBYTE, ge=1024, description="Largest calibration file that is imported, in bytes."
    )
    max_image_bytes: int = Field(default=16 * MEBIBYTE, ge=128, description="Largest encoded image in bytes.")
    max_pixels: int = Field(
        default=25_000_000, ge=1, description="Most pixels of one image, from its header."
    )
    max_images: int = Field(default=64, ge=1, le=4096, description="Most images in one POST /classify.")
    max_parts: int = Field(default=80, ge=1, description="Most multipart parts in one POST /classify.")
    max_calibration_images: int = Field(
        default=200_000, ge=1, description="Most images in one POST /calibrate."
    )
    max_archive_entries: int = Field(
        default=250_000, ge=1, le=10_000_000, description="Most entries of an archive."
    )
    max_archive_bytes: int = Field(
        default=4096 * MEBIBYTE, ge=1024, description="Most bytes that an archive may expand to."
    )
    image_formats: Annotated[tuple[ImageFormat, ...], NoDecode, CommaSeparated] = Field(
        default=("PNG", "JPEG", "WEBP", "BMP", "PPM", "GIF", "TIFF", "AVIF"),
        min_length=1,
        description="Image formats that are decoded; of a GIF the first frame, AVIF where Pillow has it.",
    )

    # --- connections --------------------------------------------------------------------------------
    max_connections: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Most open connections at a port; more are answered 503 and closed.",
    )
    max_head_bytes: int = Field(
        default=32 * 1024, ge=1024, le=MEBIBYTE, description="Longest head of a request: path and headers."
    )
    max_part_header_bytes: int = Field(
        default=4096, ge=256, le=65_536, description="Longest header of a multipart part, in bytes."
    )
    head_timeout_s: float = Field(
        default=10,
        ge=0.1,
        le=3600,
        description="A connection has so many seconds to send the head of a request, or it is closed.",
    )
    body_timeout_s: float = Field(
        default=20,
        ge=0.1,
        le=3600,
        description="A body has so many seconds to come, and one more per `least_upload_rate` bytes of it.",
    )
    least_upload_rate: float = Field(
        default=8192, ge=1, description="Slowest upload that is waited for, in bytes per second."
    )
    write_timeout_s: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        description="A client that takes no more of its answer is cut off after so long.",
    )
    keep_alive_s: int = Field(
        default=75,  # longer than the proxies before it keep an idle connection
        ge=1,
        le=3600,
        description="Idle seconds between two requests of one connection.",
    )
    max_in_flight_bytes: int = Field(
        default=256 * MEBIBYTE,
        ge=1024,
        description="Bytes of all bodies being answered, together; what exceeds them is answered 503. "
        "Calibration images do not count: they lie on the disk.",
    )
    stop_notice_s: float = Field(
        default=1,
        ge=0,
        le=600,
        description="After SIGTERM, seconds of serving on though not ready, so that load balancers notice.",
    )
    stop_timeout_s: float = Field(
        default=50,
        ge=1,
        le=3600,
        description="After SIGTERM, seconds after which the process ends, whatever is still under way.",
    )

    # --- batching ---------------------------------------------------------------------------------
    batch_rows: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="Most forward rows that share one device batch: an image counts once, and once more for "
        "every changed copy that a detector may look at.",
    )
    batch_adapts: bool = Field(
        default=True,
        description="Learn from how many rows on a larger batch is no faster per row on this device, and "
        "take no larger ones: those who came first need not wait for the others.",
    )
    lanes: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Batches that are judged at once, each on its share of the cores and in memory of its "
        "own; empty: one for each core, four at most. On a CPU with packed weights; elsewhere it is one.",
    )
    batch_delay_ms: float = Field(
        default=2.0, ge=0, le=1000, description="Longest wait for batch-mates, in milliseconds."
    )
    queue_rows: int = Field(
        default=16_384,
        ge=1,
        description="Forward rows that may wait for the device; more are answered 503 at once.",
    )
    request_timeout_ms: int = Field(
        default=30_000,
        ge=10,
        le=3_600_000,
        description="Longest wait for a verdict, in milliseconds; a request may ask for less by "
        "X-Request-Timeout-Ms.",
    )
    stuck_after_s: float = Field(
        default=120,
        ge=1,
        description="A device call that lasts longer, in seconds, makes /livez answer 503.",
    )
    calibration_batch_images: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Benign images measured at once; classification runs in between.",
    )
    decode_threads: int = Field(
        default_factory=lambda: min(8, os.cpu_count() or 1), ge=1, le=64, description="Image decoders."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not all(0 < scale < math.inf for scale in self.spc_scales):
            raise ValueError("spc_scales must be finite numbers greater than 0")
        if len(set(self.detectors)) < len(self.detectors):
            raise ValueError("detectors names one twice")
        for each in self.trusted_proxies:
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                raise ValueError(f"trusted_proxies: {error}") from error
        if self.admin_port == self.port:
            raise ValueError("admin_port must be another than port")
        secrets = [*self.caller_keys.values(), *([self.admin_key] if self.admin_key else [])]
        keys = [secret.get_secret_value() for secret in secrets]
        if len(set(keys)) < len(keys) or not all(keys):
            raise ValueError("every caller needs a key of their own, and none may be the admin key")
        if self.remote_timeout_s >= self.stuck_after_s:
            raise ValueError("remote_timeout_s must be less than stuck_after_s: waiting is not being stuck")
        if self.queue_rows < self.batch_rows:
            raise ValueError("queue_rows must be at least batch_rows")
        if self.max_in_flight_bytes < self.max_body_bytes:
            raise ValueError("max_in_flight_bytes must be at least max_body_bytes")
        return self

    @cached_property  # every request asks
    def admin_on_loopback(self) -> bool:
        """True where the admin paths can be reached from this machine alone."""
        host = self.host if self.admin_port is None else self.admin_host
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return host.lower() == "localhost"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = init_settings().get("config") or env_settings().get("config")
        content = _read_file(Path(path)) if path else {}
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=content)


def _read_file(path: Path) -> dict[str, Any]:
    """The settings in the YAML file `path`. Raises `SettingsError`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the configuration file {path} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"the configuration file {path} must hold `name: value` lines")
    return content


def unknown_variables() -> list[str]:
    """`TRIGGERWALL_*` variables that set nothing: most likely misspelt ones."""
    prefix = "TRIGGERWALL_"
    known = {prefix + name.upper() for name in Settings.model_fields} | {prefix + "URL"}  # the client's
    return sorted(
        name for name in os.environ if name.upper().startswith(prefix) and name.upper() not in known
    )
