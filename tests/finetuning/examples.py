"""A tiny task, backbone and plan."""

from pipeline.core.sections import Plan
from pipeline.data import manifest
from pipeline.finetuning import inputs
from pipeline.finetuning.task import Task
from pipeline.networks import backbones
from pipeline.networks.backbones import Loaded
from pipeline.networks.network import Backbone
from pipeline.stages import prepare
from tests.conftest import Project


def loaded(project: Project) -> Loaded:
    return backbones.load("tiny", project.write().backbone("tiny"))


def network(project: Project) -> Backbone:
    return loaded(project).network


def plan(**changes: object) -> Plan:
    settings = {"unfreeze_from": "second", "epochs": 3, "batch_size": 4, "augment": {"flips": "both"}, **changes}
    return Plan.model_validate(settings)


def task_of(project: Project) -> Task:
    """Prepare the project; return the task of its plans."""
    prepare.main(project.write())
    table = manifest.read()
    return inputs._task(table, list(range(len(table))))
