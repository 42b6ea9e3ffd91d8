"""Registry of the served models: locate, fetch, load."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gorggle_fusion.confidence import Calibration
from gorggle_server import s3
from gorggle_server.avhubert import onnx_loading
from gorggle_server.errors import InvalidRequestError, ModelFormatError, NotFoundError
from gorggle_server.inference.interface import ModelDescription, SpeechRecognizer
from gorggle_server.inference.moonshine_recognizer import DESCRIPTION as MOONSHINE
from gorggle_server.inference.moonshine_recognizer import MoonshineRecognizer
from gorggle_server.inference.recognizer import Model, Recognizer
from gorggle_server.inference.whisper_recognizer import WhisperRecognizer, describe_whisper
from gorggle_server.model_catalogue.catalogue import CatalogueModel, find_missing_extra, load_catalogue
from gorggle_server.model_catalogue.store import ModelStore, read_record
from gorggle_server.moonshine import MODEL_FILES, MODEL_SHA256, find_model_folder
from gorggle_server.recognition_options import Modality
from gorggle_server.settings import (
    AUTO_AUDIO_MODEL,
    EMBEDDED_MODEL,
    MOONSHINE_MODEL,
    NO_AUDIO_MODEL,
    ServerSettings,
)
from gorggle_server.whisper import WEIGHTS_FILE, ModelFolder, check_folder
from gorggle_server.whisper import Model as WhisperModel

_log = logging.getLogger(__name__)

MAX_MODEL_BYTES = 8 * 2**30
MODEL_FILE_SUFFIXES = frozenset({".pt", ".safetensors"})
WHISPER_ENGINE = "faster-whisper"

_CARD_MODALITIES = {
    "audio-visual": Modality.AUDIO_VISUAL,
    "video": Modality.VIDEO_ONLY,
    "audio": Modality.AUDIO_ONLY,
}


@dataclass(frozen=True)
class ServedModel:
    """A model and the name that requests use.

    Attributes:
        sha256: of its weights' file, or of its files one after the other, in hexadecimal.
        is_loaded_on_demand: the first request loads the weights, not the start of the server.
    """

    name: str
    recognizer: SpeechRecognizer
    description: ModelDescription
    sha256: str
    is_loaded_on_demand: bool = False


class ModelRegistry:
    """Models by name, the default first.

    Args:
        unavailable: names of models that cannot be served here, with the reason.
    """

    def __init__(
        self, models: Mapping[str, ServedModel], unavailable: Mapping[str, str] | None = None
    ) -> None:
        self._models, self._unavailable = dict(models), dict(unavailable or {})

    @property
    def default(self) -> str:
        """Name of the model used if a request names none."""
        return next(iter(self._models))

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def find_audio_model(self, description: ModelDescription) -> str:
        """Return the second model for a first one with this description: one for its language, if its vocabulary is closed."""
        if (
            description.has_open_vocabulary
            or "en" not in description.languages
            or MOONSHINE_MODEL not in self._models
        ):
            return ""
        return MOONSHINE_MODEL

    def __getitem__(self, name: str) -> ServedModel:
        try:
            return self._models[name]
        except KeyError:
            available = f"available: {', '.join(sorted(self._models))}"
            if reason := self._unavailable.get(name):
                raise NotFoundError(f"model {name!r} is not available here: {reason}; {available}") from None
            raise NotFoundError(f"model {name!r} does not exist; {available}") from None


def resolve_model_sources(settings: ServerSettings) -> dict[str, str]:
    """Return the location of each model by name, the default first; that of Moonshine is ``MOONSHINE_MODEL``.

    Raises:
        NotFoundError: a model is neither configured nor installed.
        InvalidRequestError: this server lacks the engine of an installed model.
    """
    sources = {EMBEDDED_MODEL.stem: str(EMBEDDED_MODEL), MOONSHINE_MODEL: MOONSHINE_MODEL, **settings.models}
    default = settings.default_model or EMBEDDED_MODEL.stem
    sources = {default: sources.get(default, default), **sources}
    store = ModelStore(settings.model_dir)
    second = settings.audio_model
    if second in load_catalogue() or store.find(second):
        sources.setdefault(second, second)
    return {name: resolve_source(source, store) for name, source in sources.items()}


def load_models(settings: ServerSettings) -> ModelRegistry:
    """Load every configured model; takes seconds to minutes.

    Raises:
        NotFoundError: a model does not exist at its location, or the package of a selected model is not installed.
        InvalidRequestError: ``settings.audio_model`` reads lips, or the engine of a model is not installed.
        ModelFormatError: a file or a folder is not a model.
    """
    models: dict[str, ServedModel] = {}
    unavailable: dict[str, str] = {}
    for name, source in resolve_model_sources(settings).items():
        if source != MOONSHINE_MODEL:
            load = _load_whisper if Path(source).is_dir() else _load_avhubert
            models[name] = load(name, source, settings)
            _log.info("loaded model %s from %s", name, source)
            continue
        try:
            is_selected = not models or name == settings.audio_model
            models[name] = _find_moonshine(name, settings, is_loaded_on_demand=not is_selected)
        except NotFoundError as error:
            if not models:
                raise
            unavailable[name] = str(error)
            _log.info("model %s is not available: %s", name, error)
    absent = _explain_absence(ModelStore(settings.model_dir))
    registry = ModelRegistry(models, {**absent, **unavailable})
    is_named = settings.audio_model not in ("", AUTO_AUDIO_MODEL, NO_AUDIO_MODEL)
    if is_named and registry[settings.audio_model].description.model_input.uses_lips:
        raise InvalidRequestError(
            f"audio_model is {settings.audio_model!r}, which reads lips: name a model that takes audio only",
            field="audio_model",
        )
    return registry


def _load_avhubert(name: str, source: str, settings: ServerSettings) -> ServedModel:
    with tempfile.TemporaryDirectory(prefix="gorggle-model-") as folder:
        path = _fetch_model(source, Path(folder))
        model = (
            _load_onnx(path, settings) if _uses_onnxruntime(path, settings) else _load_torch(path, settings)
        )
        calibrations = {
            _CARD_MODALITIES[modality]: Calibration(entry["slope"], entry["offset"])
            for modality, entry in model.card.get("confidence_calibration", {}).items()
        }
        recognizer = Recognizer(model, calibrations)
        return ServedModel(name, recognizer, _describe_avhubert(model), _hash_files([path]))


def _uses_onnxruntime(path: Path, settings: ServerSettings) -> bool:
    """Return whether a model is run by onnxruntime.

    Raises:
        InvalidRequestError: onnxruntime was selected, but cannot run the model with these settings.
        ModelFormatError: the model file is damaged.
    """
    if settings.backend == "torch":
        return False
    is_possible = (
        (settings.device, settings.dtype, settings.quantization) == ("cpu", "float32", "none")
        and path.suffix == ".safetensors"
        and onnx_loading.can_load(path)
    )
    if settings.backend == "onnxruntime" and not is_possible:
        raise InvalidRequestError(
            f"backend is onnxruntime, which runs models of gorggle-mini's architecture, on a CPU, in float32 without quantization; "
            f"{path} with device {settings.device}, dtype {settings.dtype} and quantization {settings.quantization} needs torch",
            field="backend",
        )
    return is_possible


def _load_onnx(path: Path, settings: ServerSettings) -> Model:
    return onnx_loading.load_onnx_model(path, settings.count_model_threads())


def _load_torch(path: Path, settings: ServerSettings) -> Model:
    # Imported late: it takes a second and hundreds of megabytes.
    try:
        import torch

        from gorggle_server.avhubert import load_model
    except ImportError as error:
        raise InvalidRequestError(
            f"{path} needs torch, which is not installed: pip install 'gorggle[server]'"
        ) from error
    torch.set_num_threads(settings.count_model_threads())
    model = load_model(path, device=settings.device, dtype=settings.dtype)
    return model.optimize(int8=settings.quantization == "int8")


def _describe_avhubert(model: Model) -> ModelDescription:
    config, card = model.config, model.card
    # Every AV-HuBERT model accepts a missing modality; a card may restrict this to what it was trained for.
    names = card.get("modalities", _CARD_MODALITIES)
    return ModelDescription(
        architecture="av_hubert",
        parameter_count=model.parameter_count,
        encoder_layers=config.encoder_layers,
        encoder_width=config.encoder_dim,
        decoder_layers=config.decoder_layers,
        decoder_width=config.decoder_dim,
        vocabulary_size=config.vocabulary_size,
        modalities=tuple(_CARD_MODALITIES[name] for name in names if name in _CARD_MODALITIES),
        # A card describes the vocabulary of a model that recognizes only those words.
        has_open_vocabulary=not card.get("vocabulary"),
        languages=tuple(str(code) for code in card.get("languages", [])),
        card=card,
    )


def _find_moonshine(name: str, settings: ServerSettings, *, is_loaded_on_demand: bool) -> ServedModel:
    folder = find_model_folder()
    sha256 = _hash_files([folder / file for file in MODEL_FILES])
    # Found at the start, because by default every request with audio uses the model.
    if sha256 != MODEL_SHA256:
        raise NotFoundError(
            "its weights are damaged: pip install --force-reinstall --no-deps moonshine-voice==0.1.0"
        )
    return ServedModel(
        name,
        MoonshineRecognizer(folder, settings.count_model_threads()),
        MOONSHINE,
        sha256,
        # It takes 100 MB and half a second, and many servers never use it.
        is_loaded_on_demand=is_loaded_on_demand,
    )


def _load_whisper(name: str, source: str, settings: ServerSettings) -> ServedModel:
    if extra := find_missing_extra(WHISPER_ENGINE):
        raise InvalidRequestError(
            f"model {name} in {source} needs the engine {WHISPER_ENGINE}, which is not installed: pip install '{extra}'"
        )
    folder = check_folder(Path(source))
    sha256 = _hash_files([folder.path / WEIGHTS_FILE])
    _check_weights(folder, sha256)
    model = WhisperModel(
        folder,
        settings.device,
        settings.dtype,
        int8=settings.quantization == "int8",
        num_threads=settings.count_model_threads(),
    )
    entry = _find_entry(folder, sha256)
    recognizer = WhisperRecognizer(model, entry.word_time_shift_s if entry else 0.0)
    return ServedModel(name, recognizer, describe_whisper(model, folder.dimensions, entry), sha256)


def _check_weights(folder: ModelFolder, sha256: str) -> None:
    """Raise ModelFormatError if the weights of an installed model are not those that were downloaded."""
    record = read_record(folder.path)
    recorded = {file.get("name"): file.get("sha256") for file in record.get("files", ())}
    if recorded.get(WEIGHTS_FILE) not in (None, sha256):
        name = record.get("name")
        raise ModelFormatError(
            f"{folder.path / WEIGHTS_FILE} is damaged (its SHA-256 is {sha256}, not {recorded[WEIGHTS_FILE]}): run "
            f"`gorggle model remove {name}` and `gorggle model get {name}`"
        )


def _find_entry(folder: ModelFolder, sha256: str) -> CatalogueModel | None:
    """Return the entry of a model in the catalogue, by its weights or by the name that it was installed under."""
    models = load_catalogue()
    by_weights = (model for model in models.values() if sha256 in {file.sha256 for file in model.files})
    return next(by_weights, models.get(str(read_record(folder.path).get("name"))))


def _explain_absence(store: ModelStore) -> dict[str, str]:
    """Return for each model of the catalogue what is to be done to serve it."""
    installed = store.list_models()
    reasons = {}
    for model in load_catalogue().values():
        steps = []
        if extra := find_missing_extra(model.engine):
            steps.append(f"pip install '{extra}'")
        if model.name not in installed and not model.is_embedded:
            steps.append(f"`gorggle model get {model.name}`")
        steps.append("name it in the server's setting `models`")
        reasons[model.name] = ", then ".join(steps)
    return reasons


def resolve_source(source: str, store: ModelStore) -> str:
    """Return the location of a source: itself if it is an address or a path, else where the model of this name is."""
    path = Path(source)
    if source == MOONSHINE_MODEL or "/" in source or path.suffix in MODEL_FILE_SUFFIXES or path.exists():
        return source
    return str(store.locate(source))


def _fetch_model(source: str, folder: Path) -> Path:
    if not source.startswith("s3://"):
        if not Path(source).is_file():
            raise NotFoundError(f"model file {source} does not exist")
        return Path(source)
    address = s3.S3Location.parse(source)
    path = folder / Path(address.key).name
    with path.open("wb") as file:
        for chunk in s3.read_object(address, max_bytes=MAX_MODEL_BYTES):
            file.write(chunk)
    return path


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
