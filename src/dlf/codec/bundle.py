"""Model bundles: a folder with a manifest, probability tables and networks; finding and checking.

The networks are four ONNX graphs, or the weights of three parts for the torch engine.

Every file is hashed when it is read, so that loading a model never runs or trusts a damaged file, and
decoding does not pay for files that only encoding needs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

from dlf.entropy.coder import FREQUENCY_BITS
from dlf.entropy.tables import Tables
from dlf.errors import BundleError, UnknownModel
from dlf.files import open_regular
from dlf.limits import MAX_CHANNELS, MAX_TOKENS
from dlf.records import InstalledModel

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
TABLES = "tables.npz"
GRAPHS = ("analysis.onnx", "prior.onnx", "context.onnx", "synthesis.onnx")
FILES = (*GRAPHS, TABLES)

# what decides the symbols: two bundles of equal numerics read each other's payloads
NUMERICS = ("context.onnx", "prior.onnx", TABLES)

ANALYSIS, CONTEXT, SYNTHESIS = WEIGHTS = (
    "analysis.safetensors",
    "context.safetensors",
    "synthesis.safetensors",
)


@dataclass(frozen=True)
class Engine:
    """What runs a model: the files it needs, and those of them that decide the symbols."""

    files: tuple[str, ...]
    numerics: tuple[str, ...]


ENGINES = {"onnx": Engine(FILES, NUMERICS), "torch": Engine((*WEIGHTS, TABLES), (CONTEXT, TABLES))}

FORMAT = 1
_BLOCK = 1 << 22

MAX_BYTES = {MANIFEST: 2**22, TABLES: 2**27}
"""Limits of what is read into memory of a bundle's files; for the others it is `MAX_GRAPH_BYTES`."""

MAX_GRAPH_BYTES = 2**31
"""Limit of a graph; protobuf has none above it."""

# the key without which a graph cannot name data in a file of its own, which no hash would cover
_ELSEWHERE = b"location"
ASSETS = Path(__file__).parent.parent / "assets"
DEFAULT = "default"  # the role that is taken when no model is named
# what a shipped model is for, and the folder below ASSETS that holds the one of this version
ROLES = {DEFAULT: "base", "base": "base", "fast": "fast"}


def numerics_id(hashes: Mapping[str, str], names: tuple[str, ...] = NUMERICS) -> str:
    """Return the hex SHA-256 of the joined hex hashes of the files that decide the symbols."""
    return hashlib.sha256("".join(hashes[name] for name in names).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a regular file, read block by block; raises OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_bounded(path: Path) -> bytes:
    """Return the bytes of one of a bundle's files; raises OSError, also where it is none or too large."""
    most = MAX_BYTES.get(path.name, MAX_GRAPH_BYTES)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
        return file.read(size)  # Python asks for the memory of as much as it may read


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json; the field names are its keys.

    format: version of the bundle format, 1.
    name, id: how people and streams name the model; id is 0..2**35-1, below 128 a single byte.
    numerics: `numerics_id` of the files.
    files: hex SHA-256 of each file but the manifest.
    tokens, codes: tokens of a window at most, size of their codebook.
    channels: channels of the detail latent, a multiple of 4.
    swin_window: side of the detail branch's attention windows, in patches.
    default_quality: 0..100, what is taken where none is asked for.
    card: what people should know about the model, free-form.
    engine: what runs the networks, a key of `ENGINES`.
    network: configuration of the networks; only the torch engine needs it.
    """

    format: int
    name: str
    id: int
    numerics: str
    files: dict[str, str]
    tokens: int
    codes: int
    channels: int
    swin_window: int
    default_quality: int
    card: dict[str, Any] = field(default_factory=dict)
    engine: str = "onnx"
    network: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise BundleError where a value has a wrong type or range."""
        ranges = {
            "format": (FORMAT, FORMAT),
            "id": (0, 2**35 - 1),
            "tokens": (1, MAX_TOKENS),
            "codes": (2, 2**FREQUENCY_BITS),
            "channels": (4, MAX_CHANNELS),
            "swin_window": (1, 256),
            "default_quality": (0, 100),
        }
        for key, (least, most) in ranges.items():
            value = getattr(self, key)
            if type(value) is not int or not least <= value <= most:
                msg = f"the model's manifest has {key} = {value!r}, which this package does not read"
                raise BundleError(msg)
        types = {"name": str, "numerics": str, "files": dict, "card": dict, "engine": str, "network": dict}
        if wrong := [key for key, kind in types.items() if not isinstance(getattr(self, key), kind)]:
            msg = f"the model's manifest has a value of a wrong type: {', '.join(wrong)}"
            raise BundleError(msg)
        if self.engine not in ENGINES:
            msg = f"the model needs the engine '{self.engine}', which this package does not have"
            raise BundleError(msg)
        engine = ENGINES[self.engine]
        hashed = set(self.files) == set(engine.files) and all(type(v) is str for v in self.files.values())
        if not hashed or self.numerics != numerics_id(self.files, engine.numerics):
            msg = "the model's manifest does not list its files and their hashes as it must"
            raise BundleError(msg)
        if self.channels % 4:
            msg = f"the model has {self.channels} detail channels, but the number must be a multiple of 4"
            raise BundleError(msg)

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Read JSON; unknown and missing keys are errors (BundleError), except inside `card`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            msg = "the model's manifest is not JSON"
            raise BundleError(msg) from error
        names = {f.name for f in fields(cls)}
        needed = names - {"card", "engine", "network"}
        if not isinstance(values, dict) or not needed <= set(values) <= names:
            keys = set(values) if isinstance(values, dict) else {type(values).__name__}
            wrong = sorted((keys - names) | (needed - keys))
            msg = f"the model's manifest has wrong or missing keys: {', '.join(wrong)}"
            raise BundleError(msg)
        return cls(**values)

    def dump(self) -> str:
        """Return the JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class ModelBundle:
    """One model on disk."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> ModelBundle:
        """Read the manifest of a folder; raises BundleError."""
        try:
            text = read_bounded(folder / MANIFEST)
        except OSError as error:
            msg = f"the model folder '{folder}' has no readable {MANIFEST} ({error.strerror})"
            raise BundleError(msg) from error
        return cls(folder, Manifest.parse(text))

    def read(self, name: str) -> bytes:
        """Return the bytes of one of the files after checking their hash; raises BundleError.

        A graph whose weights are in other files is refused: nothing says what is in those.
        """
        try:
            data = read_bounded(self.folder / name)
        except OSError as error:
            raise self._unreadable(name, error) from error
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name]:
            msg = f"the file {name} of the model '{self.manifest.name}' is damaged: its hash is wrong"
            raise BundleError(msg)
        if name in GRAPHS and _ELSEWHERE in data:
            msg = f"the file {name} of the model '{self.manifest.name}' takes weights from other files"
            raise BundleError(msg)
        return data

    def check(self, name: str) -> Path:
        """Return the path of one of the files after checking its hash, without holding it; BundleError."""
        path = self.folder / name
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise self._unreadable(name, error) from error
        if digest != self.manifest.files[name]:
            msg = f"the file {name} of the model '{self.manifest.name}' is damaged: its hash is wrong"
            raise BundleError(msg)
        return path

    def _unreadable(self, name: str, error: OSError) -> BundleError:
        return BundleError(f"the model '{self.manifest.name}' lacks its file {name} ({error.strerror})")

    @property
    def roles(self) -> tuple[str, ...]:
        """What the model is for, a part of `ROLES`; empty unless it comes with the package."""
        return tuple(role for role, folder in ROLES.items() if self.folder == ASSETS / folder)

    def describe(self) -> InstalledModel:
        """Return what users may know of the model."""
        return InstalledModel(
            name=self.manifest.name,
            id=self.manifest.id,
            roles=self.roles,
            engine=self.manifest.engine,
            default_quality=self.manifest.default_quality,
            file_bytes=sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file()),
            folder=self.folder,
        )

    def tables(self) -> Tables:
        """Load the probability tables; raises BundleError."""
        tables = Tables.load(self.read(TABLES))
        if (tables.tokens, tables.codes) != (self.manifest.tokens, self.manifest.codes):
            msg = f"the tables of the model '{self.manifest.name}' do not fit its manifest"
            raise BundleError(msg)
        return tables


def find(model: str | os.PathLike[str] | int | None = None, first: ModelBundle | None = None) -> ModelBundle:
    """Return the bundle of a folder, a role, a model name or a model id; None means the shipped default.

    A role (`ROLES`) says what a shipped model is for; which model that is may change with the version.

    Of several with one name or id `first` is taken if it is one of them, else the first of `installed`.

    Raises:
        UnknownModel: no such model is installed.
        BundleError: it is, but its manifest cannot be used.
        TypeError: `model` is nothing of the above.
    """
    if model is None:
        return ModelBundle.open(ASSETS / ROLES[DEFAULT])
    if isinstance(model, bool) or not isinstance(model, str | os.PathLike | int):
        msg = f"a model is a folder, a role, a name or a number, not {type(model).__name__}"
        raise TypeError(msg)
    # not Path.is_file, which raises where a name is too long
    if not isinstance(model, int) and os.path.isfile(Path(model) / MANIFEST):
        return ModelBundle.open(Path(model))
    if model in shipped_roles():
        return ModelBundle.open(ASSETS / ROLES[str(model)])
    for bundle in chain([first] if first else [], installed()):
        if model in (bundle.manifest.id, bundle.manifest.name):
            return bundle
    if model in ROLES:
        shipped = ", ".join(f"'{role}'" for role in shipped_roles()) or "none"
        msg = f"this package has no model '{model}'; it has {shipped}"
        raise UnknownModel(msg)
    raise not_installed(model)


def not_installed(model: str | os.PathLike[str] | int) -> UnknownModel:
    """Return the error that says what to do about a model that is not there."""
    what = f"number {model}" if isinstance(model, int) else f"'{model}'"
    folder = user_folder()
    place = "where $DLF_MODELS says" if folder is None else f"into '{folder}'"
    return UnknownModel(f"model {what} is not installed: put its folder {place}")


def shipped_roles() -> list[str]:
    """Return the roles that a model of this package has."""
    return [role for role, folder in ROLES.items() if (ASSETS / folder / MANIFEST).is_file()]


def installed() -> Iterator[ModelBundle]:
    """Yield every usable bundle; broken ones are logged and left out.

    The shipped default comes first, then the other shipped ones, then the user's, each by folder name.
    """
    for root in filter(None, (ASSETS, user_folder())):
        folders = (manifest.parent for manifest in root.glob(f"*/{MANIFEST}"))
        for folder in sorted(folders, key=lambda f: (f != ASSETS / ROLES[DEFAULT], f)):
            if bundle := _open_if_usable(folder):
                yield bundle


def _open_if_usable(folder: Path) -> ModelBundle | None:
    try:
        return ModelBundle.open(folder)
    except BundleError as error:
        log.warning("left out the model in '%s': %s", folder, error)
        return None


def user_folder() -> Path | None:
    """Return where the user's own models are looked for: $DLF_MODELS, or the user's data folder.

    Who has no home folder, such as a number without a name in a container, has only the former.
    """
    if named := os.environ.get("DLF_MODELS"):
        return Path(named)
    if os.name == "nt":
        data = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    else:
        data = os.environ.get("XDG_DATA_HOME", "~/.local/share")
    try:
        return Path(data).expanduser() / "dlf" / "models"
    except RuntimeError:
        return None
