"""The tables of the catalog. Rows don't leave the catalog's transactions."""

from catalog.models.data import Dataset, DatasetFile, File, Replica, Storage
from catalog.models.service import Event, Request, SchemaInfo, Singleton
from catalog.models.work import (
    IS_OPEN,
    IS_UNPASSED,
    Attempt,
    Job,
    JobInput,
    JobOutput,
    Node,
    PastJob,
    Pilot,
    Task,
    Template,
    Workflow,
    is_open,
)
from catalog.refs import StorageKind, StorageRole

__all__ = [
    "IS_OPEN",
    "IS_UNPASSED",
    "Attempt",
    "Dataset",
    "DatasetFile",
    "Event",
    "File",
    "Job",
    "JobInput",
    "JobOutput",
    "Node",
    "PastJob",
    "Pilot",
    "Replica",
    "Request",
    "SchemaInfo",
    "Singleton",
    "Storage",
    "StorageKind",
    "StorageRole",
    "Task",
    "Template",
    "Workflow",
    "is_open",
]
