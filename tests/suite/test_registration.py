import subprocess
import sys
from importlib.metadata import EntryPoint

from alignbench.plugins import Kind, load


def test_the_suite_registers_the_families_that_can_be_built():
    registry = load([EntryPoint("suite", "alignbench_suite", "alignbench")])
    components = registry.of(Kind.EVALUATION)
    assert [c.name for c in components] == [
        "capability",
        "diversity",
        "helpfulness",
        "optimization",
        "preferences",
        "refusals",
        "sycophancy",
        "tasks",
    ]
    for component in components:
        assert component.summary
        if component.name == "tasks":
            continue  # its metrics are those of the tasks that a user names
        specs = component.load()(component.config()).specs()
        assert {s.name.partition("/")[0] for s in specs} == {component.name}
        assert all(s.unit for s in specs)


def test_registering_imports_nothing_heavy():
    code = (
        "import sys; from importlib.metadata import EntryPoint; from alignbench.plugins import load;"
        "load([EntryPoint('suite', 'alignbench_suite', 'alignbench')]);"
        "sys.exit(','.join({'torch', 'numpy', 'sacrebleu', 'polars', 'transformers', 'lm_eval'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
