"""Files of the input dataset that accompany others: staged with them, no keys of their own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from catalog import jobfiles
from catalog.jobfiles import SourceFile
from flows.advance.chain import Chain
from flows.plan import Companion, Link


@dataclass(frozen=True)
class Company:
    """What accompanies one file; `fault` where something that must be there is not."""

    file_ids: tuple[int, ...] = ()
    fault: str | None = None

    def inputs(self, links: Iterable[Link], file_id: int) -> dict[str, Sequence[int]]:
        """The entries of a job's files for the ports on which it reads the file."""
        ports = [link.port for link in links if any(s.stage is None for s in link.sources)]
        return {
            jobfiles.companion_port(port, file_id): self.file_ids for port in ports if self.file_ids
        }


ALONE = Company()


def leading(session: Session, chain: Chain, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Those of some files of the input dataset that accompany no other."""
    patterns = chain.plan.companions
    if not patterns:
        return list(files)
    owners = {file.name: list(_owners(file.name, patterns)) for file in files}
    asked = {owner for found in owners.values() for owner in found if owner is not None}
    there = jobfiles.files_by_name(session, chain.dataset_id, sorted(asked), primary=True)
    return [
        file
        for file in files
        if not any(owner is None or owner in there for owner in owners[file.name])
    ]


def company(session: Session, chain: Chain, names: Sequence[str]) -> Mapping[str, Company]:
    """What accompanies files of the input dataset, by their names; not of those without any."""
    patterns = chain.plan.companions
    if not patterns:
        return {}
    wanted = {name: [pattern.of(name) for pattern in patterns] for name in names}
    asked = sorted({other for others in wanted.values() for other in others})
    there = jobfiles.files_by_name(session, chain.dataset_id, asked, primary=True)
    return {name: _found(name, others, patterns, there) for name, others in wanted.items()}


def _owners(name: str, patterns: Iterable[Companion]) -> Iterable[str | None]:
    for pattern in patterns:
        try:
            yield pattern.owner(name)
        except ValueError:
            continue


def _found(
    name: str, others: Sequence[str], patterns: Sequence[Companion], there: Mapping[str, int]
) -> Company:
    file_ids = [there[other] for other in dict.fromkeys(others) if other in there and other != name]
    missing = [
        other
        for other, pattern in zip(others, patterns, strict=True)
        if pattern.required and other not in there
    ]
    fault = f"its secondary file {missing[0]!r} is not in the dataset" if missing else None
    return Company(tuple(file_ids), fault)
