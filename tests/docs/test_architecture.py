"""The page on architecture names the wings that there are, and what each may import."""

import re

from tests.docs.pages import ROOT
from tests.test_imports import WINGS

PAGE = (ROOT / "docs/architecture.md").read_text()


def test_its_table_of_wings_is_the_rule_of_imports() -> None:
    rows = re.findall(r"^\| `service/(\w+)/` \| ([\w, ]*)\| ", PAGE, re.MULTILINE)
    told = {name: set(re.findall(r"\w+", imports)) for name, imports in rows}
    wings = {name: set(imports) for name, imports in WINGS.items() if name}
    told = {name: wings.keys() - {name} if imports == {"all"} else imports for name, imports in told.items()}
    assert told == wings
