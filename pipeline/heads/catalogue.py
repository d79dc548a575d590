"""The factories of HEADS: each returns an unfitted scikit-learn classifier.

To add a head: write a factory whose keyword arguments are the settings that params.yaml may state, decorate it, and add
an entry to params.yaml. Each factory imports what it needs, so that a head does not pay for the imports of others.
"""

import inspect
from collections.abc import Mapping

from pipeline.core.sections import Scalar
from pipeline.heads.registry import HEADS, LESS, MORE, head
from pipeline.heads.scikit_learn import GAUSSIAN, classifier_class, require_no_split_by_rows
from pipeline.heads.types import Classifier

Members = Mapping[str, Mapping[str, Scalar]]
"""Heads within an ensemble: name -> settings, with an optional `kind`."""

# --- Linear ------------------------------------------------------------------------------------------------------


@head(simpler={"C": LESS})
def logreg(
    *, seed: int = 0, C: float = 1.0, max_iter: int = 100, tol: float = 1e-3, class_weight: str | None = None
) -> Classifier:
    """Logistic regression by Newton's method; `C: sweep` tries the 45 values of the published probe protocol."""
    del seed  # nothing is random
    from pipeline.heads.logistic import Logistic  # noqa: PLC0415

    return Logistic(C=C, max_iter=max_iter, tol=tol, class_weight=class_weight)


@head(simpler={"alpha": MORE})
def ridge(*, seed: int = 0, alpha: float = 1.0, class_weight: str | None = None) -> Classifier:
    """Ridge regression on the classes, with probabilities by a temperature."""
    from sklearn.linear_model import RidgeClassifier  # noqa: PLC0415

    return RidgeClassifier(alpha=alpha, class_weight=class_weight, random_state=seed)


@head(simpler={"shrinkage": MORE})
def lda(*, seed: int = 0, shrinkage: float | str | None = "auto") -> Classifier:
    """Linear discriminant analysis; `auto` shrinks the covariance as Ledoit & Wolf (2004) do."""
    del seed
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # noqa: PLC0415

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)


@head(simpler={"C": LESS})
def linear_svm(*, seed: int = 0, C: float = 1.0, max_iter: int = 5000, class_weight: str | None = None) -> Classifier:
    """Linear support vector machine, with probabilities by a temperature."""
    from sklearn.svm import LinearSVC  # noqa: PLC0415

    return LinearSVC(C=C, max_iter=max_iter, class_weight=class_weight, random_state=seed)


# --- Kernels and distances ---------------------------------------------------------------------------------------


@head(simpler={"C": LESS, "gamma": LESS})
def rbf_svm(
    *, seed: int = 0, C: float = 1.0, gamma: float | str = "scale", class_weight: str | None = None
) -> Classifier:
    """Support vector machine with a radial basis function, with probabilities by a temperature."""
    from sklearn.svm import SVC  # noqa: PLC0415

    return SVC(C=C, gamma=gamma, class_weight=class_weight, random_state=seed)


@head(simpler={"C": LESS, "gamma": LESS, "landmarks": LESS})
def nystroem_svm(
    *, seed: int = 0, C: float = 1.0, gamma: float | None = None, landmarks: int = 1000, max_iter: int = 5000,
    class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Support vector machine on a Nystroem approximation of the radial basis function: for more rows than `rbf_svm`."""
    from sklearn.kernel_approximation import Nystroem  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    kernel = Nystroem(gamma=gamma, n_components=landmarks, random_state=seed)
    return make_pipeline(kernel, HEADS["linear_svm"].__wrapped__(  # type: ignore[attr-defined]
        seed=seed, C=C, max_iter=max_iter, class_weight=class_weight
    ))  # fmt: skip


@head(simpler={"n_neighbors": MORE})
def knn(*, seed: int = 0, n_neighbors: int = 5, weights: str = "uniform", metric: str = "cosine") -> Classifier:
    """Nearest neighbours."""
    del seed
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    return KNeighborsClassifier(n_neighbors=n_neighbors, weights=weights, metric=metric, algorithm="brute")


@head(simpler={"shrink_threshold": MORE})
def nearest_mean(*, seed: int = 0, shrink_threshold: float | None = None) -> Classifier:
    """Nearest class mean; probabilities by the distances under equal variances (Tibshirani et al. 2002)."""
    del seed
    from sklearn.neighbors import NearestCentroid  # noqa: PLC0415

    return NearestCentroid(shrink_threshold=shrink_threshold)


# --- Trees -------------------------------------------------------------------------------------------------------


@head("none", simpler={"min_samples_leaf": MORE, "max_features": LESS, "n_estimators": LESS})
def random_forest(
    *, seed: int = 0, n_estimators: int = 300, max_features: float | str = "sqrt", min_samples_leaf: int = 1,
    class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Random forest."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    return RandomForestClassifier(
        n_estimators=n_estimators,
        max_features=max_features,
        min_samples_leaf=min_samples_leaf,
        class_weight=class_weight,
        random_state=seed,
        n_jobs=-1,
    )


@head("none", simpler={"min_samples_leaf": MORE, "max_features": LESS, "n_estimators": LESS})
def extra_trees(
    *, seed: int = 0, n_estimators: int = 300, max_features: float | str = "sqrt", min_samples_leaf: int = 1,
    class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Extremely randomised trees."""
    from sklearn.ensemble import ExtraTreesClassifier  # noqa: PLC0415

    return ExtraTreesClassifier(
        n_estimators=n_estimators,
        max_features=max_features,
        min_samples_leaf=min_samples_leaf,
        class_weight=class_weight,
        random_state=seed,
        n_jobs=-1,
    )


@head(
    "none",
    simpler={
        "max_leaf_nodes": LESS,
        "min_samples_leaf": MORE,
        "max_iter": LESS,
        "learning_rate": LESS,
        "max_features": LESS,
    },
)
def gradient_boosting(
    *, seed: int = 0, learning_rate: float = 0.1, max_iter: int = 100, max_leaf_nodes: int = 31,
    min_samples_leaf: int = 20, max_features: float = 1.0, class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Gradient boosting on histograms of the features."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    return HistGradientBoostingClassifier(
        learning_rate=learning_rate,
        max_iter=max_iter,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        max_features=max_features,
        class_weight=class_weight,
        early_stopping=False,  # it would hold out rows, not images
        random_state=seed,
    )


# --- Networks ----------------------------------------------------------------------------------------------------


@head(simpler={"hidden": LESS, "weight_decay": MORE, "dropout": MORE, "epochs": LESS})
def mlp(
    *, seed: int = 0, hidden: int = 128, dropout: float = 0.5, learning_rate: float = 1e-3, weight_decay: float = 1e-2,
    epochs: int = 100, patience: int = 10, class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Multi-layer perceptron with one hidden layer, stopped early; trained by PyTorch."""
    from pipeline.networks.mlp import MLPHead  # noqa: PLC0415

    return MLPHead(
        hidden=hidden,
        dropout=dropout,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        patience=patience,
        class_weight=class_weight,
        random_state=seed,
    )


@head(streams=True, simpler={"weight_decay": MORE, "epochs": LESS})
def streaming_linear(
    *, seed: int = 0, learning_rate: float = 3e-3, weight_decay: float = 1e-4, epochs: int = 5,
    class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Logistic regression trained block by block from the file, for a matrix larger than memory; it standardises."""
    from pipeline.networks.streaming import StreamingHead  # noqa: PLC0415

    return StreamingHead(
        hidden=0,
        dropout=0.0,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        class_weight=class_weight,
        random_state=seed,
    )


@head(streams=True, simpler={"hidden": LESS, "weight_decay": MORE, "dropout": MORE, "epochs": LESS})
def streaming_mlp(
    *, seed: int = 0, hidden: int = 256, dropout: float = 0.5, learning_rate: float = 1e-3, weight_decay: float = 1e-2,
    epochs: int = 5, class_weight: str | None = None,
) -> Classifier:  # fmt: skip
    """Multi-layer perceptron trained block by block from the file, for a matrix larger than memory; it standardises."""
    from pipeline.networks.streaming import StreamingHead  # noqa: PLC0415

    if hidden == 0:
        raise ValueError("hidden: got 0, expected at least 1; use `streaming_linear` for no hidden layer")
    return StreamingHead(
        hidden=hidden,
        dropout=dropout,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        class_weight=class_weight,
        random_state=seed,
    )


# --- Ensembles ---------------------------------------------------------------------------------------------------

_MEMBERS: Members = {"logreg": {"C": 0.01}, "nearest_mean": {}}


def _build_members(members: Members, seed: int) -> list[tuple[str, Classifier]]:
    settings = {name: {key: value for key, value in entry.items() if key != "kind"} for name, entry in members.items()}
    kinds = {name: str(entry.get("kind", name)) for name, entry in members.items()}
    return [(name, HEADS[kinds[name]](seed=seed, **settings[name])) for name in members]


@head("none")
def voting(*, seed: int = 0, members: Members = _MEMBERS) -> Classifier:
    """Mean of other heads' probabilities."""
    from pipeline.heads.ensembles import Voting  # noqa: PLC0415

    return Voting(_build_members(members, seed))


@head("none", simpler={"C": LESS})
def stacking(*, seed: int = 0, members: Members = _MEMBERS, C: float = 1.0, folds: int = 5) -> Classifier:
    """Logistic regression on other heads' cross-validated probabilities (Wolpert 1992)."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    from pipeline.heads.ensembles import Stacking  # noqa: PLC0415

    return Stacking(
        _build_members(members, seed), LogisticRegression(C=C, max_iter=1000), folds=folds, random_state=seed
    )


# --- Any other classifier of scikit-learn ------------------------------------------------------------------------


@head()
def sklearn_class(*, seed: int = 0, class_name: str = GAUSSIAN, **settings: Scalar) -> Classifier:
    """Any classifier of scikit-learn by the name of its class, with the parameters of that class."""
    found = classifier_class(class_name)
    parameters = inspect.signature(found).parameters
    fixed: dict[str, Scalar] = {"random_state": seed} if "random_state" in parameters else {}
    if "early_stopping" in parameters:
        fixed["early_stopping"] = False
    require_no_split_by_rows(found, settings)
    return found(**{**fixed, **settings})
