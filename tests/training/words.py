"""Options of the training commands, as words of the command line."""

OPTIONS = {
    "data",
    "out",
    "quiet",
    "validation",
    "fold",
    "only",
    "crops",
    "imagenet",
    "recipe",
    "id",
    "licence",
    "data_note",
}


def as_words(name: str, value: object) -> tuple[str, str]:
    """An option of its own, or a setting of the recipe."""
    return (f"--{name.replace('_', '-')}", str(value)) if name in OPTIONS else ("--set", f"{name}={value}")
