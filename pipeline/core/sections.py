"""The sections of params.yaml as frozen, validated models."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Scalar: TypeAlias = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str | None
Setting: TypeAlias = Scalar | list[Scalar] | dict[str, dict[str, Scalar]]
"""Of a head: one fixed value, a list to search, or the heads inside it with fixed settings of their own."""
HeadEntry: TypeAlias = Mapping[str, Setting]
Names = TypeVar("Names", tuple[str, ...], list[str])


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise ValueError("a name becomes a file name and a part of a DVC key: letters, digits, '_' and '-' only")
    return name


def _listed(value: object) -> object:
    """Turn a single string into a list of one."""
    return [value] if isinstance(value, str) else value


def _or_empty(value: object) -> object:
    """Turn a name without a value into an entry that sets nothing."""
    return {} if value is None else value


def _not_repeated(values: Names) -> Names:
    if len(set(values)) < len(values):
        raise ValueError("expected each once")
    return values


One = TypeVar("One")
OneOrMore = Annotated[tuple[One, ...], BeforeValidator(_listed), AfterValidator(_not_repeated)]
OrEmpty = Annotated[One, BeforeValidator(_or_empty)]
Name = Annotated[str, AfterValidator(_plain_name)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """What all sections share: no unknown key, and no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


STORE = Path(".headswap/images")
"""Images that were read out of an archive or a remote root, each under the sha256 of its bytes."""
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class Columns(Section):
    """What the user's table calls its columns; `group` and `split` may be missing there."""

    path: str = "path"
    label: str = "label"
    group: str = "group"
    split: str = "split"

    @model_validator(mode="after")
    def _are_four(self) -> "Columns":
        if len(names := {self.path, self.label, self.group, self.split}) < 4:
            raise ValueError(f"got {sorted(names)}, expected four different names")
        return self


def _root(url: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s]*", url) or "::" in url:
        raise ValueError("expected the root of a remote place, such as s3://bucket/photos")
    return url.rstrip("/")


class Data(Section):
    """Where the images are and how they are labelled, and what to do about images that leak from split to split.

    `path` is a folder, an archive, or a table of what lies under `remote`.
    """

    source: str
    path: Path
    columns: Columns = Columns()
    remote: Annotated[str, AfterValidator(_root)] | None = None
    """URL of the root under which the table's paths lie."""
    on_leak: Literal["warn", "fail"] = "warn"
    near_duplicate: Annotated[float, Field(ge=0.5, le=1)] = 0.96
    """The correlation of pixels (see `pipeline.quality.copies`) from which two images count as near-duplicates."""

    @property
    def is_archive(self) -> bool:
        """Whether `path` names one file that holds the images."""
        return self.path.name.lower().endswith(ARCHIVES) and not self.path.is_dir()

    @property
    def folder(self) -> Path:
        """The folder in which the images lie, once `prepare` has read them."""
        return STORE if self.is_archive or self.remote else self.path


class Split(Section):
    """How records are dealt to train, validation and test; `val` and `test` are fractions of the whole."""

    method: Literal["hash", "stratified", "grouped", "predefined"] = "hash"
    val: Fraction = 0.15
    test: Fraction = 0.25

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Split":
        if self.val + self.test >= 1:
            raise ValueError(f"val + test = {self.val + self.test:g}, expected less than 1")
        return self


class Augment(Section):
    """Views of an image: what may be done to it."""

    flips: Literal["none", "horizontal", "both"] = "horizontal"
    quarter_turns: bool = False
    """For images without an up side."""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The smallest fraction of the side that a random crop keeps."""
    rotate: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Degrees at most, either way."""
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Brightness, contrast and saturation change by this fraction at most."""


class Engine(Section):
    """Where work runs: in this process, or on the workers of a cluster that is there already."""

    backend: Literal["local", "dask", "ray"] = "local"
    address: str | None = None
    """Of Dask's scheduler, tcp://HOST:PORT, or Ray's head, HOST:PORT."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> "Engine":
        if self.backend == "local" and self.address is not None:
            raise ValueError(f"backend: got 'local' beside address {self.address!r}, expected dask or ray")
        form = {"dask": r"(tcp|tls)://[^\s/]+:\d+", "ray": r"[^\s/]+:\d+"}.get(self.backend, "")
        if form and not re.fullmatch(form, self.address or ""):
            expected = "tcp://HOST:PORT of the scheduler" if self.backend == "dask" else "HOST:PORT of the head"
            raise ValueError(f"address: got {self.address!r}, expected {expected}")
        return self


class Embed(Section):
    """The frozen pass; `copies` is the number of augmented views of each training image."""

    batch_size: Annotated[int, Field(gt=0, le=4096)] = 32
    dtype: Literal["float16", "float32"] = "float16"
    runtime: Literal["auto", "torch", "torch_compile", "openvino", "onnxruntime"]
    on_bad_image: Literal["fail", "skip"] = "fail"
    scaled_jpeg: bool = False
    copies: Annotated[int, Field(ge=0, le=1000)] = 0
    augment: Augment = Augment()
    cache: Path = Path(".headswap/embeddings")
    engine: Engine = Engine()


class Selection(Section):
    """How choices are made: hyper-parameters by k-fold within train, everything else on validation."""

    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"]
    folds: Annotated[int, Field(ge=2)] = 5
    repeats: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many times k-fold scores the chosen head again, each time with another seed; 0: never."""


class Compare(Section):
    """The verdict's statistics; `margin` is the smallest gain, as a fraction, that is worth having."""

    bootstrap: Annotated[int, Field(ge=100)] = 5000
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    decision: Literal["most_probable", "threshold"] = "most_probable"
    costs: dict[str, dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] = {}
    """true class -> decided class -> cost; if set, the class with the smallest expected cost is decided."""


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("expected ascending fractions, each once")
    return values


class Curve(Section):
    """The label-efficiency curve: what heads and plans reach with parts of the training images.

    Its heads have settings of their own, so that editing one under `heads` does not draw the curve anew.
    """

    fractions: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1), AfterValidator(_ascending)
    ] = (0.05, 0.1, 0.25, 0.5, 1.0)
    """Of the training images."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    """How often the parts are drawn; those of one drawing are nested."""
    heads: dict[Name, dict[str, Setting]]
    plans: Annotated[list[Name], AfterValidator(_not_repeated)]
    """Names from `plans`; each costs seeds x fractions whole trainings."""


class Run(Section):
    """What `dvc repro` runs: names from the catalogues below."""

    backbones: list[Name] = Field(min_length=1)
    heads: list[Name] = Field(min_length=1)
    plans: list[Name]


class BackboneEntry(Section):
    """One frozen CNN; `kind` is its name in the code's catalogue, `weights` a local checkpoint instead of its own.

    Left out, `image_size` and `crop` are what the weights were trained for, and `layers` is the last block.
    """

    kind: str | None = None
    image_size: Annotated[int, Field(ge=32, le=1024)] | None = None
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    layers: OneOrMore[str] = ()
    pooling: Annotated[OneOrMore[Literal["average", "max", "gem"]], Field(min_length=1)] = ("average",)
    weights: Path | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _local_weights_are_pinned(self) -> "BackboneEntry":
        if self.weights is not None and self.sha256 is None:
            raise ValueError("weights from a local file need their sha256 stated beside them")
        return self


class Plan(Section):
    """One way to fine-tune; `unfreeze_from` names the first block that trains.

    `stem` trains everything, `classifier` nothing but the classifier.
    """

    unfreeze_from: str
    thaw_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs until one more block trains, from the last to `unfreeze_from`; 0: all of them from the start."""
    epochs: Positive = 12
    batch_size: Annotated[int, Field(ge=2)] = 32
    accumulate: Positive = 1
    """Batches whose gradients make one step."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Of the last block; each block before it has `layer_decay` times the next one's."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    classifier_learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    schedule: Literal["cosine", "one_cycle"] = "cosine"
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Fraction of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    clip: Annotated[float, Field(gt=0)] | None = None
    """The largest norm of all gradients together."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights; if not 0, the averaged weights are the ones scored."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of the Beta distribution that two images are mixed by; 0: not at all."""
    class_weight: Literal["balanced"] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    batch_norm: Literal["frozen", "trained"] = "frozen"
    patience: Positive = 4
    """Epochs without a better validation score until it stops."""
    start: Literal["zeros", "logistic"] = "zeros"
    """Of the classifier; logistic: a head on the frozen network's output (LP-FT)."""
    augment: Augment = Augment()
    cache_frozen: bool = False
    """Store the frozen part's output once per image and view, and let the epochs run only the rest."""
    cached_views: Annotated[int, Field(gt=0, le=1000)] | None = None
    """Of each training image; left out, as many as flips and quarter-turns make."""
    cached_dtype: Literal["float16", "float32"] = "float16"
