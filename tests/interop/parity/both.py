"""What both comparisons with PyTorch need: a network as a file, and a paired difference with its interval."""

import statistics

import torch

# Student's t, 0.975, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def export(network, inputs, opset, dynamo, path):
    names = list(inputs)
    rows = tuple(torch.from_numpy(array[:4]) for array in inputs.values())
    more = {"dynamic_axes": {name: {0: "batch"} for name in names}, "do_constant_folding": False}
    if dynamo:
        batch = torch.export.Dim("batch")
        more = {"dynamic_shapes": tuple({0: batch} for _ in names), "optimize": False, "external_data": False}
    else:
        more["training"] = torch.onnx.TrainingMode.TRAINING
    torch.onnx.export(
        network, rows, str(path), dynamo=dynamo, opset_version=opset, input_names=names, output_names=["logits"], verbose=False, **more
    )


def difference(ours, theirs):
    """Mean of the paired differences, and half of its 95 % interval; one pair has none."""
    differences = [a - b for a, b in zip(ours, theirs)]
    count = len(differences)
    half = STUDENT[count - 1] * statistics.stdev(differences) / count**0.5 if count > 1 else float("inf")
    return statistics.mean(differences), half
