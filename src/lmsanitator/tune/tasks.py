from dataclasses import dataclass
@dataclass(frozen=True)
class Example:
    text: str
    label: int
@dataclass(frozen=True)
class Task:
    labels: tuple
    train: tuple
    validation: tuple
    test: tuple
