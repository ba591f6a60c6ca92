"""Writes the node cases of the installed `onnx` package as files: a model, its inputs and what must come out.

    python onnx_cases.py FOLDER

The package carries these cases as Python (Debian's libonnx-testdata has them as files, but only up to opset 17). Cases that
repeat an operator as the function it is short for are left out, and so is what is no tensor.
"""

import sys
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def tensors(values, infos):
    """Protobufs of one side of a case, or nothing if one is no tensor."""
    if any(value is None or isinstance(value, (list, dict)) for value in values):
        return None
    try:
        return [numpy_helper.from_array(value, info.name) for value, info in zip(values, infos)]
    except (AttributeError, KeyError, TypeError, ValueError):  # a type that numpy does not have
        return None


def main(folder):
    written = left_out = 0
    for case in collect_testcases(None):
        if case.name.endswith("_expanded") or "_expanded_ver" in case.name:
            continue
        graph = case.model.graph
        for inputs, outputs in case.data_sets[:1]:
            sides = tensors(inputs, graph.input), tensors(outputs, graph.output)
            if None in sides or len(inputs) != len(graph.input):
                left_out += 1
                continue
            data = folder / case.name / "test_data_set_0"
            data.mkdir(parents=True, exist_ok=True)
            onnx.save(case.model, data.parent / "model.onnx")
            for kind, side in zip(("input", "output"), sides):
                for i, tensor in enumerate(side):
                    (data / f"{kind}_{i}.pb").write_bytes(tensor.SerializeToString())
            written += 1
    print(f"onnx {onnx.__version__}: {written} cases written, {left_out} are no tensors")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
