"""Run the notebooks beside this file, and keep what they print and draw: `make notebooks`."""

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parent


def main() -> None:
    """Run each in an empty folder, as somebody would who has just installed the service."""
    os.environ["PYTHONPATH"] = str(DOCS.parent)
    for path in sorted(DOCS.glob("*.ipynb")):
        notebook = nbformat.read(path, 4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(
                notebook, timeout=600, resources={"metadata": {"path": folder}}, record_timing=False
            ).execute()
        notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        for number, cell in enumerate(notebook.cells):
            cell.id = f"cell-{number}"
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
